"""YAML on standard input, JSON on standard output: a list of its documents.

Each argument is a version of Kubernetes by whose schemas the documents have to be valid, without a
field that the schema does not know. Kinds that others define have no schema here.
"""

import json
import sys

import kubernetes_validate
import yaml

ELSEWHERE = ("monitoring.coreos.com/", "postgresql.cnpg.io/", "external-secrets.io/")

# The one in C, where there is one: it takes a tenth of the time.
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
documents = [document for document in yaml.load_all(sys.stdin, loader) if document is not None]
wrong = []
for document in documents:
    for version in sys.argv[1:]:
        name = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
        if document.get("apiVersion", "").startswith(ELSEWHERE):
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            wrong.append(f"{name}: Kubernetes {version} knows no such kind")
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            wrong.append(f"{name}, Kubernetes {version}, at {place}: {error.message}")
if wrong:
    sys.exit("\n".join(wrong))
json.dump(documents, sys.stdout)
