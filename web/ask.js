/** Questions to page/routes.py. */

import { api } from "../../scripts/api.js"

/** @returns {Promise<object>} the answer; throws an Error with the server's sentence. */
export async function ask(name, question) {
  const response = await api.fetchApi(`/control_composer/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  })
  const answer = await response.json().catch(() => ({}))
  if (!response.ok || answer.refused) throw new Error(answer.refused ?? `control_composer/${name}: ${response.status}`)
  return answer
}
