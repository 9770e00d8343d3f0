// Tables that sort and filter, pictures that grow. Nothing here knows what a page is about.
"use strict";

function valueOf(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.value;
  return number === undefined ? cell.textContent.trim().toLowerCase() : Number(number);
}

// Numbers before texts; a number that is none (an empty class has no accuracy) after all others.
function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a - b;
}

function sortBy(head) {
  const table = head.closest("table"), column = head.cellIndex;
  const order = head.dataset.order === "up" ? "down" : "up";
  for (const other of head.parentElement.cells) delete other.dataset.order;
  head.dataset.order = order;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column)) * (order === "up" ? 1 : -1));
  table.tBodies[0].append(...rows);
}

function filterRows(field) {
  const wanted = field.value.trim().toLowerCase();
  for (const row of field.parentElement.querySelector("table").tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
}

function enlarge(image) {
  const dialog = document.createElement("dialog");
  const large = image.cloneNode(), caption = document.createElement("p");
  caption.textContent = image.alt;
  dialog.append(large, caption);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  if (event.target.matches("th")) sortBy(event.target);
  else if (event.target.matches("figure img")) enlarge(event.target);
});
document.addEventListener("input", (event) => {
  if (event.target.matches("input.filter")) filterRows(event.target);
});
