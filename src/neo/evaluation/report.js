// Filters, kept in the page's address (#family=...&kind=...&text=...), so that a view can be linked to.
const controls = ["family", "kind", "text"].map((name) => document.getElementById(name));
const cards = [...document.querySelectorAll("article")];
const texts = cards.map((card) => card.textContent.toLowerCase());

function show() {
  const [family, kind, text] = controls.map((control) => control.value);
  cards.forEach((card, place) => {
    card.hidden =
      (family && card.dataset.family !== family) ||
      (kind && card.dataset.kind !== kind) ||
      !texts[place].includes(text.toLowerCase());
  });
  document.getElementById("shown").textContent =
    `${cards.filter((card) => !card.hidden).length} of ${cards.length} questions`;
}

function read() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const control of controls)
    if (control.type === "search" || [...control.options].some((one) => one.value === wanted.get(control.id)))
      control.value = wanted.get(control.id) ?? "";
  show();
}

for (const control of controls)
  control.addEventListener("input", () => {
    history.replaceState(null, "", "#" + new URLSearchParams(controls.map((one) => [one.id, one.value])));
    show();
  });
addEventListener("hashchange", read);
read();
