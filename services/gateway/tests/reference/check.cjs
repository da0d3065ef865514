// Reads the documents in the folder that is named: `node check.cjs FOLDER`, and says what is wrong
// with them. NODE_PATH is where the readers are.
'use strict';

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Parser } = require('@asyncapi/parser');
const { Validator } = require('@seriousme/openapi-schema-validator');

const read = (name) => readFileSync(join(process.argv[2], name), 'utf8');

// A newer AsyncAPI would do as well: no fault of the document.
const IGNORED = ['asyncapi-latest-version'];

async function main() {
  const wrong = [];
  const { document, diagnostics } = await new Parser().parse(read('asyncapi.json'));
  for (const { code, severity, message, path } of diagnostics) {
    // Errors and warnings.
    if (severity <= 1 && !IGNORED.includes(code)) wrong.push(`asyncapi ${path.join('/')}: ${code}: ${message}`);
  }
  if (!document) wrong.push('asyncapi: it cannot be read');
  else if (document.operations().length < 40) wrong.push('asyncapi: most operations are missing');

  const validator = new Validator();
  const { valid, errors } = await validator.validate(JSON.parse(read('openapi.json')));
  if (!valid) wrong.push(`openapi ${validator.version}: ${JSON.stringify(errors, null, 1)}`);

  for (const what of wrong) console.log(what);
  process.exitCode = wrong.length ? 1 : 0;
}

main();
