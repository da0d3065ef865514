// Whether what was said is what the documents describe: reads {documents, said} from its input, and
// tells what is not. A field that no document knows is told too. NODE_PATH is where Ajv is.
'use strict';

const { readFileSync } = require('node:fs');
const addFormats = require('ajv-formats');
const { Ajv } = require('ajv');

const { documents, said } = JSON.parse(readFileSync(0, 'utf8'));
const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
for (const [name, { components, channels }] of Object.entries(documents)) {
  // The parts of a whole know nothing of one another's fields.
  const parts = new Set(Object.values(components.schemas).flatMap(({ allOf }) => allOf ?? []).map(({ $ref }) => $ref?.split('/').pop()));
  for (const [key, schema] of Object.entries(components.schemas)) {
    if (schema.properties && !parts.has(key)) schema.additionalProperties ??= false;
  }
  for (const { messages } of Object.values(channels ?? {})) {
    for (const { payload } of Object.values(messages)) {
      if (payload.properties) payload.additionalProperties ??= false;
    }
  }
  ajv.addSchema({ components, channels }, name);
}
for (const { document, schema, value } of said) {
  const valid = ajv.compile({ $ref: `${document}#${schema}` });
  if (valid(value)) continue;
  process.exitCode = 1;
  console.log(`${document}#${schema}: ${ajv.errorsText(valid.errors)}: ${JSON.stringify(value)}`);
}
