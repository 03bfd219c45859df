// What is asked of the server, and how its answers are read.

const CUT_OFF = "the connection to the server was lost before the answer had ended";

export const address = new URL("v1/", document.baseURI).href;

/** The name of the model that is served. */
export async function modelName(key) {
  const response = await reached(address + "models", { headers: headers(key) });
  return (await response.json()).data[0].id;
}

/** Where the model looked as it said a word of an answer, from `start` to `stop`: the shares of each picture. */
export async function attention({ model, messages }, answer, start, stop, key) {
  const response = await reached(new URL("attention", document.baseURI).href, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify({ model, messages, answer, start, stop }),
  });
  return response.json();
}

/** The pieces of an answer, one after the other; throws the server's own sentence where it refuses. */
export async function* answer(body, key, signal) {
  const response = await reached(address + "chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const event of events(response.body)) {
    if (event === "[DONE]") return;
    const chunk = JSON.parse(event);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk.choices[0]?.delta.content ?? "";
  }
  throw new Error(CUT_OFF);
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function reached(url, options) {
  const response = await fetch(url, options).catch(lost("the server cannot be reached; is it still running?"));
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw Object.assign(new Error(said?.error?.message ?? `the server said ${response.status}`), { status: response.status });
}

/** In place of the browser's own words, unless the reader has stopped the answer. */
function lost(sentence) {
  return (error) => {
    throw error.name === "AbortError" ? error : new Error(sentence);
  };
}

/** The data of server-sent events, which end in an empty line. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(lost(CUT_OFF));
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield part.replace(/^data: /, "");
  }
}
