// The page: what the reader does, and what follows from it.

import { offerLook } from "./attention.js";
import { readPicture } from "./pictures.js";
import { address, answer, attention, modelName } from "./server.js";
import { asCurl, asPython } from "./snippets.js";
import { addTurn, find, showBusy, showError, showPictures, showStatus } from "./view.js";

const KEY = "neo-api-key";
const COMPLETE = "The answer is complete.";
let model = "";
let messages = []; // the conversation, as the server wants it
let pictures = []; // of the question that is being written
let lastRequest = null;
let running = null; // stops the answer that is coming

find("key").value = sessionStorage.getItem(KEY) ?? "";
find("key").addEventListener("change", () => {
  sessionStorage.setItem(KEY, find("key").value);
  meet().catch(tell);
});

/** Learn the model's name. */
async function meet() {
  model = await modelName(find("key").value);
  find("model").textContent = model;
  showError("");
}

function tell(error) {
  showError(error.message);
  if (error.status === 401) find("settings").open = true;
}

// --- pictures ---

async function addPictures(files) {
  showError("");
  for (const file of files) {
    try {
      pictures.push(await readPicture(file));
    } catch (error) {
      tell(error);
    }
  }
  redrawPictures();
  find("question").focus();
}

function removePicture(picture) {
  pictures = pictures.filter((one) => one !== picture);
  redrawPictures();
  find("question").focus();
}

function redrawPictures() {
  showPictures(pictures, removePicture);
}

for (const id of ["choose", "camera"]) {
  find(id).addEventListener("change", async (event) => {
    await addPictures([...event.target.files]);
    event.target.value = ""; // so that the same one can be chosen again
  });
}

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  addPictures(files);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  addPictures([...event.dataTransfer.files]);
});

// --- asking ---

function request(question) {
  const system = find("system").value.trim();
  return {
    model,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages, question],
    temperature: find("temperature").valueAsNumber,
    top_p: find("top_p").valueAsNumber,
    max_tokens: find("max_tokens").valueAsNumber,
  };
}

function turnOf(text, shown) {
  const parts = shown.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: [...parts, { type: "text", text }] };
}

function isPictured({ content }) {
  return Array.isArray(content) && content.some(({ type }) => type === "image_url");
}

/** Where a number is none, or out of its range, say so and lead there. */
function settingsAreRight() {
  const wrong = find("settings").querySelector("input:invalid");
  if (!wrong) return true;
  find("settings").open = true;
  showError(`${wrong.labels[0].textContent.trim()}: ${wrong.validationMessage}`);
  wrong.focus();
  return false;
}

async function ask() {
  const text = find("question").value.trim();
  if (running || !text || !settingsAreRight()) return;
  const shown = pictures;
  running = new AbortController();
  showError("");
  showStatus("The answer is coming.");
  const asked = addTurn("user", text, shown);
  const answered = addTurn("assistant", "");
  find("question").value = "";
  pictures = [];
  redrawPictures();
  showBusy(true);

  const question = turnOf(text, shown);
  let ended = "";
  try {
    if (!model) await meet();
    lastRequest = request(question);
    for (const id of ["curl", "python"]) find(id).disabled = false;
    for await (const piece of answer(lastRequest, find("key").value, running.signal)) answered.said.textContent += piece;
    ended = COMPLETE;
  } catch (error) {
    if (error.name === "AbortError") ended = "Stopped.";
    else tell(error);
  }
  const said = answered.said.textContent;
  if (said || ended === COMPLETE) {
    messages.push(question, { role: "assistant", content: said });
    if (said && messages.some(isPictured)) {
      const sent = lastRequest;
      offerLook(answered, (start, stop) => attention(sent, said, start, stop, find("key").value), tell);
    }
  } else {
    // Nothing came: the question goes back to where it can be changed and asked again.
    asked.turn.remove();
    answered.turn.remove();
    find("question").value ||= text;
    pictures = [...shown, ...pictures];
    redrawPictures();
  }
  running = null;
  showStatus(ended);
  showBusy(false);
  find("ask").scrollIntoView({ block: "nearest" });
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
find("stop").addEventListener("click", () => running?.abort());
find("again").addEventListener("click", () => {
  messages = [];
  find("conversation").replaceChildren();
  showError("");
  showStatus("A new conversation.");
  showBusy(false);
  find("question").focus();
});

// --- copying ---

async function copy(program, name) {
  try {
    await navigator.clipboard.writeText(program(address, lastRequest));
    showStatus(`Copied as ${name}.`);
  } catch {
    showError("the browser does not let this page copy; it does over https and on this machine itself");
  }
}
find("curl").addEventListener("click", () => copy(asCurl, "curl"));
find("python").addEventListener("click", () => copy(asPython, "Python"));

meet().catch(tell);
