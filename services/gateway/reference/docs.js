// Draws the reference from the two documents that the gateway serves: calls, events and types alike.

const reference = document.querySelector('#reference');
const contents = document.querySelector('#contents');
const nav = contents.querySelector('nav');
const filter = document.querySelector('#filter');
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** An element with attributes and children; what is missing is left out. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== ''));
  return element;
}

/** The types that there are. */
const known = new Set();

/** A description: `code` in backticks, types as links, the rest as it is. */
function prose(text) {
  if (!text) return [];
  return text.split('`').map((part, index) => {
    if (index % 2 === 0) return part;
    return el('code', {}, known.has(part) ? el('a', { href: `#type-${part}` }, part) : part);
  });
}

const nameOf = (ref) => ref.split('/').pop();
const slug = (text) => text.replace(/[^\w]+/g, '-').replace(/^-|-$/g, '');

/** What a schema is called, with links to what it names. */
function typed(schema) {
  if (!schema) return [];
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return [el('a', { href: `#type-${name}`, class: 'type' }, name)];
  }
  if ('const' in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(' | ')];
  for (const [key, between] of [['oneOf', ' | '], ['anyOf', ' | '], ['allOf', ' & ']]) {
    if (schema[key]) return schema[key].flatMap((part, index) => [index ? between : '', ...typed(part)]);
  }
  if (Array.isArray(schema.type)) {
    return schema.type.flatMap((type, index) => [index ? ' | ' : '', ...typed({ ...schema, type })]);
  }
  if (schema.type === 'array') {
    return Array.isArray(schema.items) ? ['array'] : ['array of ', ...typed(schema.items)];
  }
  if (schema.type === 'object' && schema.additionalProperties) {
    return ['map of ', ...typed(schema.additionalProperties)];
  }
  const format = { uuid: 'UUID', 'date-time': 'time', binary: 'file' }[schema.format];
  return [format ?? schema.type ?? 'anything'];
}

/** A list of named things: fields, parameters. */
function rows(entries) {
  return el('dl', { class: 'fields' }, entries.map(({ name, required, schema, about }) => el('div', {},
    el('dt', {}, el('code', {}, name), required ? '' : el('span', { class: 'optional' }, 'optional')),
    el('dd', {}, schema ? el('span', { class: 'of' }, typed(schema)) : '', about ? el('span', {}, prose(about)) : ''),
  )));
}

/** The fields of a schema, those of its parts among them. */
function fields(schema, schemas) {
  if (!schema) return [];
  if (schema.$ref) return fields(schemas[nameOf(schema.$ref)], schemas);
  const parts = (schema.allOf ?? []).flatMap((part) => fields(part, schemas));
  const own = Object.entries(schema.properties ?? {}).map(([name, of]) => ({
    name,
    required: (schema.required ?? []).includes(name),
    schema: of,
    about: of.description ?? of.oneOf?.find((part) => part.description)?.description,
  }));
  // What has to be there first.
  return [...own, ...parts].sort((a, b) => b.required - a.required);
}

function part(title, ...children) {
  return el('div', { class: 'part' }, el('h4', {}, title), children);
}

/** What is sent or answered: its type, and the fields of that. */
function payload(title, schema, schemas) {
  if (!schema) return '';
  const inside = fields(schema, schemas);
  return part(title, el('p', { class: 'of' }, typed(schema)), inside.length ? rows(inside) : '');
}

/** What a description says, and what it lists after that: the words of an enum. */
function told(description = '') {
  const [about, list = ''] = description.split('\n\n- ');
  const words = [...`\n- ${list}`.matchAll(/^- `(.*?)`: (.*)$/gm)];
  return { about, words: words.map(([, name, meaning]) => ({ name, required: true, about: meaning })) };
}

function code(text, transport) {
  return el('pre', { class: 'code', 'data-for': transport, tabindex: '0' }, el('code', {}, text));
}

/** JSON as one reads it: short things on one line. */
function spelled(value, indent = '') {
  const short = JSON.stringify(value);
  if (value === null || typeof value !== 'object' || short.length + indent.length < 64) return short;
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const lines = Object.entries(value).map(([key, part]) => (
    `${inner}${Array.isArray(value) ? '' : `${JSON.stringify(key)}: `}${spelled(part, inner)}`
  ));
  return `${open}\n${lines.join(',\n')}\n${indent}${close}`;
}

function entry(id, { title, tag, summary, about }, ...children) {
  return el('article', { id, 'data-title': title },
    el('h3', {}, tag ? el('span', { class: `tag ${tag.toLowerCase()}` }, tag) : '',
      el('a', { href: `#${id}`, class: 'anchor' }, title)),
    summary ? el('p', {}, prose(summary)) : '',
    about ? el('p', { class: 'about' }, prose(about)) : '',
    children);
}

function call(path, method, operation, schemas) {
  const places = ['path', 'query'].map((place) => {
    const here = (operation.parameters ?? []).filter((parameter) => parameter.in === place);
    const told = here.map(({ name, required, schema, description }) => (
      { name, required, schema, about: description }
    ));
    return told.length ? part(place === 'path' ? 'In the path' : 'In the query', rows(told)) : '';
  });
  const [kind, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const answers = Object.entries(operation.responses).map(([status, { description, content }]) => el('div', {},
    el('dt', {}, el('code', { class: status < 300 ? 'good' : 'bad' }, status)),
    el('dd', {}, el('span', { class: 'of' }, typed(Object.values(content ?? {})[0]?.schema)),
      el('span', {}, prose(description))),
  ));
  // Where it may go well in two ways, the later one is the first time.
  const [good, { content }] = Object.entries(operation.responses).filter(([status]) => status < 300).pop();
  const shown = (example) => (example === undefined ? '' : `\n${spelled(example)}`);
  const answered = Object.values(content ?? {})[0];
  const sent = kind?.startsWith('multipart/')
    ? Object.entries(body.example).map(([name, value]) => `\n${name}: ${value}`).join('')
    : shown(body?.example);
  const example = [
    `→ ${method.toUpperCase()} ${path}${sent}`,
    `← ${good}${shown(answered?.example)}`,
  ];
  const title = path.replace('/v1', '');
  return entry(`call-${method}-${slug(path)}`,
    { title, tag: method.toUpperCase(), summary: operation.summary, about: operation.description },
    operation.security ? el('p', { class: 'note' }, 'Needs no token.') : '',
    places,
    payload(kind === 'application/json' ? 'Body' : `Body (${kind})`, body?.schema, schemas),
    part('Answers', el('dl', { class: 'fields' }, answers)),
    part('Example', code(example.join('\n'))));
}

/** A frame as one reads it: what it is before what it holds. */
function framed(frame) {
  if (Array.isArray(frame)) return spelled(frame.map((part) => (part?.data ? ordered(part) : part)));
  return spelled(ordered(frame));
}

function ordered(frame) {
  const first = ['event', 'reply', 'ok', 'id', 'data', 'error'].filter((key) => key in frame);
  return Object.fromEntries([...first, ...Object.keys(frame)].map((key) => [key, frame[key]]));
}

/** An event, by what both channels say of it. A request whose name is an event's too has another key. */
function event(key, operations, channels, schemas) {
  const [[channel, operation]] = operations;
  const message = channels[channel].messages[key];
  const { name } = message;
  const request = operation.action === 'receive';
  const data = channel === 'websocket' ? message.payload.properties.data : message.payload.items[1];
  const replied = operations[0][1].reply && channel === 'websocket'
    ? channels[channel].messages[`${name}.reply`].payload.properties.data : undefined;
  const notes = [
    operations.length === 1 ? 'Socket.IO only.' : '',
    channel === 'websocket' && message.payload.properties.cursor ? 'On a feed: it comes with a `cursor`.' : '',
  ];
  const examples = operations.flatMap(([on, { reply }]) => {
    const shown = (of) => channels[on].messages[of]?.examples?.[0]?.payload;
    const lines = [`${request ? '→' : '←'} ${framed(shown(key))}`];
    if (reply) lines.push(`${request ? '←' : '→'} ${framed(shown(`${name}.reply`))}`);
    return code(lines.join('\n'), operations.length === 1 ? undefined : on);
  });
  const errors = operation['x-errors'];
  return entry(`event-${key}`,
    { title: name, summary: operation.summary, about: operation.description },
    notes.map((note) => (note ? el('p', { class: 'note' }, prose(note)) : '')),
    payload('Data', data, schemas),
    payload('Reply', replied, schemas),
    errors ? part('Errors', el('p', { class: 'codes' }, errors.flatMap((error) => [
      el('code', {}, el('a', { href: '#type-ErrorCode' }, error)), ' ',
    ]))) : '',
    part('Example', examples));
}

function type(name, schema, schemas) {
  const inside = fields(schema, schemas);
  const { about, words } = told(schema.description);
  const listed = inside.length ? inside : words;
  return entry(`type-${name}`, { title: name, summary: about },
    listed.length ? rows(listed) : el('p', { class: 'of' }, typed(schema)),
    schema.example ? part('Example', code(spelled(schema.example))) : '');
}

function section(id, title, about, entries) {
  return el('section', { id, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title), about ? el('p', { class: 'about' }, prose(about)) : '', entries);
}

function byEvent(operations) {
  const events = new Map();
  for (const [key, operation] of Object.entries(operations)) {
    const [channel, ...rest] = key.split('.');
    const name = rest.join('.');
    const spellings = events.get(name) ?? [];
    // The WebSocket's first: it shows the plain payload.
    if (channel === 'websocket') spellings.unshift([channel, operation]);
    else spellings.push([channel, operation]);
    events.set(name, spellings);
  }
  return [...events];
}

function transports(channels) {
  const told = Object.entries(channels).map(([id, { title, address, description }]) => el('article', { id: `transport-${id}`, 'data-title': title },
    el('h3', {}, `${title} `, el('code', {}, address)), el('p', {}, prose(description))));
  const codes = channels.websocket['x-close-codes'].map(({ code: number, reason, meaning }) => el('div', {},
    el('dt', {}, el('code', {}, String(number))),
    el('dd', {}, el('span', { class: 'of' }, reason), el('span', {}, prose(meaning.trim()))),
  ));
  const closing = entry('close-codes', { title: 'Close codes', summary: 'Socket.IO tells them by `closing`.' },
    el('dl', { class: 'fields' }, codes));
  return [told, closing];
}

function draw(openapi, asyncapi) {
  const schemas = { ...asyncapi.components.schemas, ...openapi.components.schemas };
  for (const name of Object.keys(schemas)) known.add(name);
  const calls = Object.entries(openapi.paths).flatMap(([path, item]) => (
    METHODS.filter((method) => item[method]).map((method) => call(path, method, item[method], schemas))
  ));
  const events = byEvent(asyncapi.operations);
  const drawn = (action) => events
    .filter(([, [[, operation]]]) => operation.action === action)
    .map(([name, operations]) => event(name, operations, asyncapi.channels, schemas));
  const types = Object.keys(schemas).sort((a, b) => a.localeCompare(b));
  return [
    section('calls', 'REST calls', `Under \`/v1\`, JSON both ways, with \`Authorization: Bearer\`. Errors are a \`Problem\` of \`application/problem+json\`. ${openapi.info.description}`, calls),
    section('transports', 'The socket', 'The same events over either of two transports.', transports(asyncapi.channels)),
    section('requests', 'Events you send', 'Arrows show the direction: → to the server, ← from it.', drawn('receive')),
    section('events', 'Events you get', '', drawn('send')),
    section('types', 'Types', '', types.map((name) => type(name, schemas[name], schemas))),
  ];
}

/** The list of contents, and what each of its lines stands for. */
function list() {
  for (const { id, children } of document.querySelectorAll('main section')) {
    const links = [...children].filter((child) => child.id && child.matches('article')).map((article) => (
      el('li', {}, el('a', { href: `#${article.id}` }, article.querySelector('.tag')?.cloneNode(true), article.dataset.title))
    ));
    nav.append(el('p', {}, el('a', { href: `#${id}` }, children[0].textContent)), links.length ? el('ul', {}, links) : '');
  }
}

function sift() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let any = false;
  for (const article of reference.querySelectorAll('article')) {
    // Names, and what is said of them: not the fields, of which many have many.
    const told = [...article.querySelectorAll(':scope > h3, :scope > p')].map((part) => part.textContent);
    const text = told.join(' ').toLowerCase();
    article.hidden = !words.every((word) => text.includes(word));
    any ||= !article.hidden;
  }
  for (const part of reference.querySelectorAll('section')) {
    part.hidden = !part.querySelector('article:not([hidden])');
  }
  for (const link of nav.querySelectorAll('a')) {
    const target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    (link.closest('li') ?? link).hidden = Boolean(target?.hidden);
  }
  document.querySelector('#start').hidden = words.length > 0;
  document.querySelector('#nothing').hidden = any;
}

/** Goes where the address says, past the filter if need be. */
function go() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest('[hidden]')) {
    filter.value = '';
    sift();
  }
  target.scrollIntoView();
}

const wide = matchMedia('(min-width: 60rem)');
const unfold = () => { contents.open = wide.matches; };
wide.addEventListener('change', unfold);
unfold();
nav.addEventListener('click', ({ target }) => {
  if (target.closest('a') && !wide.matches) contents.open = false;
});
filter.addEventListener('input', () => {
  sift();
  scrollTo({ top: 0 });
});
addEventListener('hashchange', go);
addEventListener('keydown', (pressed) => {
  if (pressed.key === '/' && !pressed.target.matches('input')) {
    pressed.preventDefault();
    filter.focus();
  } else if (pressed.key === 'Escape' && pressed.target === filter) {
    filter.value = '';
    sift();
  }
});

reference.append(el('p', { role: 'status' }, 'Loading …'));
try {
  const documents = await Promise.all(['/v1/openapi.json', '/v1/asyncapi.json'].map(async (path) => {
    const response = await fetch(path);
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json();
  }));
  reference.replaceChildren(...draw(...documents));
  list();
  go();
} catch (error) {
  reference.replaceChildren(el('p', { role: 'alert' }, `The documents cannot be shown: ${error.message}`));
}
