/** The words of our scripts in the page's language: the part `controlComposer` of locales/<language>/main.json. */

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const FALLBACK = "en"
let found

/** @returns {Promise<Record<string, string>>} by their names; English where a language lacks one. */
export function words() {
  found ??= read()
  return found
}

async function read() {
  const all = await (await api.fetchApi("/i18n")).json()
  const language = app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? FALLBACK
  return { ...all[FALLBACK]?.controlComposer, ...all[language]?.controlComposer }
}

/** "block {number}" and { number: 3 } -> "block 3" */
export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all)
}
