// What stands on the page. Texts are put in as text, never as HTML.

export const find = (id) => document.getElementById(id);

export function element(name, properties = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Put a turn at the end of the conversation; gives the turn and the paragraph of its text. */
export function addTurn(role, text, pictures = []) {
  const said = element("p", { textContent: text });
  const turn = element("article", { className: role }, [
    element("h2", { textContent: role === "user" ? "You" : "NEO" }),
    ...pictures.map(({ name, url }) => element("div", { className: "picture" }, [element("img", { src: url, alt: name })])),
    said,
  ]);
  find("conversation").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  return { turn, said };
}

/** Show the pictures of the question that is being written, each with a button that takes it away. */
export function showPictures(pictures, remove) {
  const items = pictures.map((picture) => {
    const button = element("button", { type: "button", textContent: "×", ariaLabel: `Remove ${picture.name}` });
    button.onclick = () => remove(picture);
    return element("li", {}, [element("img", { src: picture.url, alt: picture.name }), button]);
  });
  find("pictures").replaceChildren(...items);
}

export function showStatus(text) {
  find("status").textContent = text;
}

export function showError(text) {
  find("error").textContent = text;
}

/** While an answer comes, Stop stands in the place of Ask, and screen readers wait for the whole text. */
export function showBusy(busy) {
  const focused = document.activeElement;
  find("send").hidden = busy;
  find("stop").hidden = !busy;
  find("again").disabled = busy || !find("conversation").children.length;
  find("conversation").ariaBusy = String(busy);
  if (focused === find("send") || focused === find("stop")) find(busy ? "stop" : "question").focus();
}
