/**
 * k6's WebSocket with an event loop: `k6/websockets` from k6 1.6 on, before that under its
 * experimental name, which is to go. An `import` of a module that is missing could not be caught.
 */
function find() {
  try {
    return require('k6/websockets');
  } catch (_) {
    return require('k6/experimental/websockets');
  }
}

module.exports = { WebSocket: find().WebSocket };
