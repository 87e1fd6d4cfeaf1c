// Sorts tables by a column when its header is pressed. Everything in the report is readable without it.
"use strict";

function readKey(row, column) {
  const cell = row.cells[column];
  if (column === 0) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function compareKeys(first, second, direction) {
  if (first === null || second === null) return (first === null) - (second === null);
  return direction * (first < second ? -1 : first > second ? 1 : 0);
}

function sortTable(table, column, header) {
  const isAscending = header.getAttribute("aria-sort") === "descending" || (column === 0 && !header.hasAttribute("aria-sort"));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows).filter((row) => !row.classList.contains("total"));
  const totals = Array.from(body.rows).filter((row) => row.classList.contains("total"));
  rows.sort((a, b) => compareKeys(readKey(a, column), readKey(b, column), isAscending ? 1 : -1));
  body.append(...rows, ...totals);
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => sortTable(table, column, header));
  });
}
