/** Callbacks of nodes and widgets that others have set, or will set, too. */

/**
 * Whenever `owner[name]` is called, first what was there before, whose answer stays the answer, then `after`, with what it was called with.
 * @param {object} owner a node or a widget
 */
export function chain(owner, name, after) {
  const before = owner[name]
  owner[name] = function (...given) {
    const answer = before?.apply(this, given)
    after.apply(this, given)
    return answer
  }
}
