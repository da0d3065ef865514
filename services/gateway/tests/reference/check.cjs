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

// A reader of examples, which the parsers leave alone: a field that no schema knows is wrong too.
function reader({ channels, components, paths }) {
  // The parts of a whole know nothing of one another's fields.
  const whole = ({ allOf, oneOf }) => [...(allOf ?? []), ...(oneOf ?? []).flatMap((one) => one.allOf ?? [])];
  const parts = new Set(Object.values(components.schemas).flatMap(whole).map(({ $ref }) => $ref?.split('/').pop()));
  for (const [key, schema] of Object.entries(components.schemas)) {
    if (schema.properties && !parts.has(key)) schema.additionalProperties ??= false;
  }
  for (const { messages } of Object.values(channels ?? {})) {
    for (const { payload } of Object.values(messages)) {
      if (payload.properties) payload.additionalProperties ??= false;
    }
  }
  const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
  return ajv.addSchema({ channels, components, paths }, 'document');
}

function answers(document) {
  const ajv = reader(document);
  const wrong = [];
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, { requestBody, responses }] of Object.entries(item)) {
      for (const { content } of [requestBody ?? {}, ...Object.values(responses)]) {
        for (const { schema, example } of Object.values(content ?? {})) {
          if (example === undefined) continue;
          // References lead into the document.
          const local = JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/'));
          const valid = ajv.compile(local);
          if (!valid(example)) wrong.push(`${method} ${path}: ${ajv.errorsText(valid.errors)}`);
        }
      }
    }
  }
  for (const [name, { example }] of Object.entries(document.components.schemas)) {
    if (example === undefined) continue;
    const valid = ajv.compile({ $ref: `document#/components/schemas/${name}` });
    if (!valid(example)) wrong.push(`${name}: ${ajv.errorsText(valid.errors)}`);
  }
  return wrong;
}

function payloads(document) {
  const ajv = reader(document);
  const { channels } = document;
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

  wrong.push(...payloads(JSON.parse(read('asyncapi.json'))));
  wrong.push(...answers(JSON.parse(read('openapi.json'))));

  const validator = new Validator();
  const { valid, errors } = await validator.validate(JSON.parse(read('openapi.json')));
  if (!valid) wrong.push(`openapi ${validator.version}: ${JSON.stringify(errors, null, 1)}`);

  for (const what of wrong) console.log(what);
  process.exitCode = wrong.length ? 1 : 0;
}

main();
