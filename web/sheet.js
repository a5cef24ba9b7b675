/** Style sheets of this folder. */

/** Links one into the page. Its rules concern classes of ours only. */
export function addSheet(name) {
  const sheet = document.createElement("link")
  sheet.rel = "stylesheet"
  sheet.href = new URL(name, import.meta.url)
  document.head.append(sheet)
}
