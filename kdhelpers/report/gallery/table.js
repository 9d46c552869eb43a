"use strict";
for (const form of document.querySelectorAll("form.filters")) {
  const table = document.getElementById(form.dataset.table);
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const selects = [...form.querySelectorAll("select")];
  const text = form.querySelector("input");
  const count = form.querySelector("output");
  const parts = (row, key) => key === "profile" ? row.dataset[key].split("\n") : [row.dataset[key]];

  for (const select of selects) {
    const values = new Set(rows.flatMap(row => parts(row, select.dataset.key)).filter(Boolean));
    for (const value of [...values].sort()) select.add(new Option(value, value));
    select.parentElement.hidden = values.size < 2;
    if (values.size < 2) select.parentElement.style.display = "none";
  }

  const plain = content => content.toLowerCase().replaceAll("−", "-");  // a keyboard has no minus sign
  const filter = () => {
    const words = plain(text.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const chosen = selects.every(select => !select.value || parts(row, select.dataset.key).includes(select.value));
      const content = plain(row.textContent);
      row.hidden = !(chosen && words.every(word => content.includes(word)));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} settings`;
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const content = cell.textContent.trim();
    return content === "–" ? null : content;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b :
    String(a).localeCompare(String(b), "en", {numeric: true});
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head, column) => {
    const numeric = rows.some(row => row.cells[column].dataset.value !== undefined);
    const now = head.getAttribute("aria-sort");
    const down = now ? now === "ascending" : numeric;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => {
      const [first, second] = [key(a, column), key(b, column)];
      if (first === null || second === null) return (first === null) - (second === null);
      return (down ? -1 : 1) * compare(first, second);
    });
    body.append(...rows);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column));
  });

  form.addEventListener("input", filter);
  addEventListener("pageshow", filter);  // on the way back the browser restores the choices without an event
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  form.hidden = false;
  filter();
}
