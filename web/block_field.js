/** A field for a number over a bar. */

import { made } from "./block_parts.js"

const WIDTH = 52
const HEIGHT = 20
const LABEL = 21

/**
 * @param {HTMLElement} plot holds the bar, and the field while something is typed
 * @param {{label: string, share: number, value: string, begun: string | null}} told `share` of the height at which the bar ends; `begun` is what was
 *   typed already, in place of the `value`
 * @param {(number: number | null, back: boolean) => void} done null where nothing is to change; `back`: the focus belongs to the bar again
 */
export function numberOver(bar, plot, { label, share, value, begun }, done) {
  const field = made("input", "field", { type: "text", inputmode: "decimal", autocomplete: "off", "aria-label": label })
  field.value = begun ?? value
  field.style.bottom = `calc(${share} * (100% - ${LABEL}px - ${HEIGHT}px) + ${LABEL}px)`
  const middle = bar.offsetLeft + bar.parentElement.parentElement.offsetLeft + bar.offsetWidth / 2
  field.style.left = `${Math.max(0, Math.min(plot.clientWidth - WIDTH, middle - WIDTH / 2))}px`
  let over = false
  const end = (keep, back) => {
    if (over) return
    const number = Number(field.value.trim().replace(",", "."))
    const good = field.value.trim() !== "" && Number.isFinite(number)
    if (keep && !good && back) return field.setAttribute("aria-invalid", "true")
    over = true
    field.remove()
    done(keep && good ? number : null, back)
  }
  field.addEventListener("keydown", (event) => {
    event.stopPropagation()
    if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault()
      end(event.key === "Enter", true)
    }
  })
  field.addEventListener("blur", () => end(true, false))
  for (const name of ["pointerdown", "dblclick"]) field.addEventListener(name, (event) => event.stopPropagation())
  plot.append(field)
  field.focus({ preventScroll: true })
  if (begun == null) field.select()
}
