/** What the bars of Block Weights are made of: elements, and numbers as they are shown. */

/** @param {string} part of the class that block_bars.css knows; "" for the whole */
export function made(tag, part, attributes = {}) {
  const element = document.createElement(tag)
  element.className = `control-composer-weights${part ? `-${part}` : ""}`
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}

export function round(value) {
  return Math.round(value * 1000) / 1000
}

export function short(value) {
  return String(Math.abs(value) >= 10 ? Math.round(value) : Math.round(value * 100) / 100)
}
