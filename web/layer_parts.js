/** What the list of layers is made of: elements, buttons, signs. */

export const NAME = "control-composer-layers"

const ICONS = {
  grip: '<path d="M6 3h1v1H6zM9 3h1v1H9zM6 6h1v1H6zM9 6h1v1H9zM6 9h1v1H6zM9 9h1v1H9zM6 12h1v1H6zM9 12h1v1H9z" stroke-width="1.2"/>',
  on: '<path d="M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8z"/><circle cx="8" cy="8" r="2"/>',
  off: '<path d="M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM2.5 13.5l11-11"/>',
  up: '<path d="M4 10l4-4 4 4"/>',
  down: '<path d="M4 6l4 4 4-4"/>',
  warning: '<path d="M8 2l6.5 11.5h-13zM8 6.5v3.2M8 11.4v.4"/>',
  picture: '<rect x="2" y="3" width="12" height="10" rx="1"/><path d="M2 11l3.5-3.5L8 10l2.5-2.5L14 11"/>',
  mask: '<rect x="2" y="2" width="12" height="12" rx="1"/><circle cx="8" cy="8" r="3" fill="currentColor"/>',
  schedule: '<path d="M2 2v12h12M4 11c4 0 4-7 9-7"/>',
  weights: '<path d="M3 14V8M8 14V2M13 14v-4" stroke-width="2.2"/>',
  balance: '<path d="M8 2v12M3 5h10M1.5 10L3 5l1.5 5a1.5 1.5 0 0 1-3 0zM11.5 10L13 5l1.5 5a1.5 1.5 0 0 1-3 0z"/>',
}

/** @param {number | null} value anything else, as of a widget that another pack has changed, is not known either */
export function brief(value) {
  return Number.isFinite(value) ? String(Number(value.toFixed(3))) : "–"
}

export function element(tag, name, attributes = {}, ...children) {
  const made = document.createElement(tag)
  if (name) made.className = `${NAME}-${name}`
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

export function button(name, act) {
  const made = element("button", name, { type: "button" })
  made.addEventListener("click", act)
  return made
}

export function icon(name) {
  const made = element("span", "icon", { "aria-hidden": "true" })
  made.innerHTML = `<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round" stroke-linejoin="round">${ICONS[name]}</svg>`
  return made
}

/** Writes only what differs, so that tooltips stay open and screen readers silent. */
export function label(made, text) {
  if (made.title === text) return
  made.title = text
  made.setAttribute("aria-label", text)
}
