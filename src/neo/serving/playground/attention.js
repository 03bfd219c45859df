// Where the model looked as it said a word: chosen in an answer, drawn over the conversation's pictures.

import { element, find, showStatus } from "./view.js";

/** Give an answer a button that makes each of its words one; `look(start, stop)` asks the server about a word. */
export function offerLook({ turn, said }, look, tell) {
  const offer = element("button", { type: "button", className: "look", textContent: "Where did it look?" });
  offer.onclick = () => {
    offer.remove();
    said.replaceChildren(...words(said.textContent, (word, start, stop) => choose(word, () => look(start, stop), tell)));
    said.querySelector("button")?.focus();
    showStatus("Choose a word of the answer.");
  };
  turn.append(offer);
}

/** Words as buttons, and what stands between them; places are counted in characters, as the server counts them. */
function words(text, chosen) {
  const nodes = text.split(/(\S+)/).filter(Boolean);
  let stop = 0;
  return nodes.map((node) => {
    const start = stop;
    stop += [...node].length;
    if (!node.trim()) return node;
    const word = element("button", { type: "button", className: "word", textContent: node, ariaPressed: "false" });
    const place = stop;
    word.onclick = () => chosen(word, start, place);
    return word;
  });
}

async function choose(word, look, tell) {
  const again = word.ariaPressed === "true";
  for (const shown of find("conversation").querySelectorAll("canvas")) shown.remove();
  for (const one of find("conversation").querySelectorAll(".word")) one.ariaPressed = "false";
  showStatus("");
  if (again) return;
  word.ariaPressed = "true";
  try {
    const { pictures } = await look();
    if (word.ariaPressed === "true" && word.isConnected) draw(word.textContent, pictures); // nothing else was chosen since
  } catch (error) {
    word.ariaPressed = "false";
    tell(error);
  }
}

/** The brightest place is where most attention went, in any of the pictures. */
function draw(word, pictures) {
  const shares = pictures.flatMap((picture) => picture.shares);
  const most = Math.max(...shares);
  const holders = find("conversation").querySelectorAll(".picture");
  pictures.forEach(({ rows, columns, shares }, number) => {
    const canvas = element("canvas", { width: columns, height: rows, role: "img", ariaLabel: `Attention of ${word}` });
    const context = canvas.getContext("2d");
    shares.forEach((share, place) => {
      context.fillStyle = `rgba(255, 90, 0, ${(0.8 * share) / most})`;
      context.fillRect(place % columns, Math.floor(place / columns), 1, 1);
    });
    holders[number].append(canvas);
  });
  const all = shares.reduce((sum, share) => sum + share, 0);
  showStatus(`${Math.round(100 * all)} % of the attention of “${word}” went to the picture${pictures.length > 1 ? "s" : ""}.`);
}
