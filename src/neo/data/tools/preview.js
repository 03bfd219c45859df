// Filters and the grid, kept in the page's address (#family=...&source=...&grid=...), so that a view can be linked to.
const controls = ["family", "source", "grid"].map((name) => document.getElementById(name));
const cards = [...document.querySelectorAll("article")];

function show() {
  const [family, source, grid] = controls.map((control) => control.value);
  document.body.dataset.grid = grid;
  for (const card of cards)
    card.hidden = (family && card.dataset.family !== family) || (source && card.dataset.source !== source);
  document.getElementById("shown").textContent =
    `${cards.filter((card) => !card.hidden).length} of ${cards.length} records`;
}

function read() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const control of controls)
    if ([...control.options].some((option) => option.value === wanted.get(control.id)))
      control.value = wanted.get(control.id);
  show();
}

for (const control of controls)
  control.addEventListener("change", () => {
    history.replaceState(null, "", "#" + new URLSearchParams(controls.map((one) => [one.id, one.value])));
    show();
  });
addEventListener("hashchange", read);
read();
