// Reads the documents in the folder that is named: `node check.cjs FOLDER`, and says what is wrong
// with them. NODE_PATH is where the readers are.
'use strict';

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const addFormats = require('ajv-formats');
const { Ajv } = require('ajv');
const { Parser } = require('@asyncapi/parser');
const { Validator } = require('@seriousme/openapi-schema-validator');

const read = (name) => readFileSync(join(process.argv[2], name), 'utf8');

// Every example against its payload's schema, which the parser leaves alone.
function examples({ channels, components }) {
  const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
  ajv.addSchema({ channels, components }, 'document');
  const wrong = [];
  for (const [channel, { messages }] of Object.entries(channels)) {
    for (const [name, message] of Object.entries(messages)) {
      const valid = ajv.compile({ $ref: `document#/channels/${channel}/messages/${name}/payload` });
      if (!message.examples.length) wrong.push(`${channel} ${name}: no example`);
      for (const { payload } of message.examples) {
        if (!valid(payload)) wrong.push(`${channel} ${name}: ${ajv.errorsText(valid.errors)}`);
      }
    }
  }
  return wrong;
}

async function main() {
  const wrong = [];
  const { document, diagnostics } = await new Parser().parse(read('asyncapi.json'));
  for (const { code, severity, message, path } of diagnostics) {
    // Errors and warnings.
    if (severity <= 1) wrong.push(`asyncapi ${path.join('/')}: ${code}: ${message}`);
  }
  if (!document) wrong.push('asyncapi: it cannot be read');
  else if (document.operations().length < 40) wrong.push('asyncapi: most operations are missing');

  wrong.push(...examples(JSON.parse(read('asyncapi.json'))));

  const validator = new Validator();
  const { valid, errors } = await validator.validate(JSON.parse(read('openapi.json')));
  if (!valid) wrong.push(`openapi ${validator.version}: ${JSON.stringify(errors, null, 1)}`);

  for (const what of wrong) console.log(what);
  process.exitCode = wrong.length ? 1 : 0;
}

main();
