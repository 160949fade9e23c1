"use strict";

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

function sort(header) {
  const table = header.closest("table");
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(key(a.cells[header.cellIndex]), key(b.cells[header.cellIndex])));
  if (!up) rows.reverse();
  table.tBodies[0].append(...rows);
}

function key(cell) {
  return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
}

function compare(a, b) {
  return typeof a === "number" ? (a > b) - (a < b) : a.localeCompare(b);
}

for (const button of document.querySelectorAll("[data-open], [data-close]")) {
  const tree = document.getElementById(button.dataset.open || button.dataset.close);
  button.addEventListener("click", () => {
    for (const part of tree.querySelectorAll("details")) part.open = "open" in button.dataset;
  });
}

for (const filter of document.querySelectorAll(".filter")) {
  filter.addEventListener("input", () => narrow(filter.closest("section"), filter.value.toLowerCase()));
}

function narrow(section, wanted) {
  let shown = 0;
  for (const group of section.querySelectorAll("details.misses")) {
    const named = group.dataset.name.toLowerCase().includes(wanted);
    let here = 0;
    for (const row of group.querySelectorAll("tbody tr")) {
      row.hidden = !named && !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden) here += Number(row.dataset.count);
    }
    group.hidden = here === 0;
    if (wanted && here) group.open = true;
    shown += here;
  }
  section.querySelector("output").textContent = `${shown} shown`;
}
