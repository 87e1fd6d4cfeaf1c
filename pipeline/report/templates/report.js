// Sorts tables, moves through matrices by arrow keys, marks the section in view. Everything is readable without it.
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

// In a matrix, one cell is reached by Tab and the arrow keys lead from there to the nearest cell with a number.
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function findNext(cell, [down, right]) {
  const rows = cell.closest("tbody").rows;
  let row = cell.parentElement.sectionRowIndex + down;
  let column = cell.cellIndex + right;
  for (; row >= 0 && row < rows.length && column > 0 && column < rows[row].cells.length; row += down, column += right) {
    const link = rows[row].cells[column].querySelector("a");
    if (link) return link;
  }
  return null;
}

function describeCell(cell) {
  const headers = cell.closest("table").tHead.rows[0].cells;
  cell.title = `${cell.parentElement.cells[0].textContent} → ${headers[cell.cellIndex].textContent}`;
}

for (const matrix of document.querySelectorAll(".matrix")) {
  matrix.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("td");
    if (cell) describeCell(cell);
  });
  const links = Array.from(matrix.querySelectorAll("td a"));
  links.forEach((link, index) => { link.tabIndex = index ? -1 : 0; });
  matrix.addEventListener("keydown", (event) => {
    const link = event.target.closest("td a");
    const next = link && event.key in STEPS && findNext(link.parentElement, STEPS[event.key]);
    if (!next) return;
    event.preventDefault();
    link.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// The navigation marks the section in view.
const marks = new Map(Array.from(document.querySelectorAll("nav.sections a"), (link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of marks.values()) link.removeAttribute("aria-current");
    marks.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -75% 0px" });
for (const id of marks.keys()) watcher.observe(document.getElementById(id));
