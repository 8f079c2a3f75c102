// Requests to the server, what they answer, and the same requests as curl commands.

// A tree comes drawn; everything else is JSON.
const ACCEPT = { ner: "application/json", parse: "text/html" };

/** What went wrong, in words for the person at the screen. */
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The models that the server offers. */
export async function getModels(key) {
  const response = await ask("models", { headers: authorisation(key) });
  return (await response.json()).models;
}

/** The answer to one task: its body, the milliseconds it took, and the server's own account of them. */
export async function annotate(task, text, model, key, signal) {
  const began = performance.now();
  const response = await ask(task, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: ACCEPT[task], ...authorisation(key) },
    body: bodyOf(text, model),
    signal,
  });
  const body = task === "ner" ? await response.json() : await response.text();
  const milliseconds = performance.now() - began;
  return { body, milliseconds, stages: stagesOf(response.headers.get("Server-Timing") ?? "") };
}

/** The same request for a shell. A key stays out of it: the command takes it from a variable. */
export function curlCommand(task, text, model, key) {
  return [
    `curl ${quoted(new URL(task, document.baseURI).href)}`,
    `-H ${quoted("Content-Type: application/json")}`,
    ...(ACCEPT[task] === "application/json" ? [] : [`-H ${quoted(`Accept: ${ACCEPT[task]}`)}`]),
    ...(key ? ['-H "Authorization: Bearer $API_KEY"'] : []),
    `-d ${quoted(bodyOf(text, model))}`,
  ].join(" \\\n  ");
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it running, and is this device online?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** A problem's detail says when to come back; an answer of something in between has the header alone. */
async function refusal(response) {
  const { title, detail } = await response.json().catch(() => ({}));
  const what = title ?? `The server answered ${response.status}`;
  const more = detail ?? retryAdvice(response.headers.get("Retry-After"));
  return new Refused(`${what}. ${more}`.trim(), response.status);
}

function retryAdvice(retryAfter) {
  if (retryAfter === null) return "";
  if (!/^\d+$/.test(retryAfter)) return `Try again after ${retryAfter}.`;
  return `Try again in ${retryAfter} ${retryAfter === "1" ? "second" : "seconds"}.`;
}

function authorisation(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function bodyOf(text, model) {
  return JSON.stringify({ texts: [text], model });
}

/** `read;dur=0.2, engine;dur=5` as [["read", 0.2], ["engine", 5]]. */
function stagesOf(serverTiming) {
  return [...serverTiming.matchAll(/([\w-]+)[^,]*?;\s*dur=([\d.]+)/g)].map(([, name, duration]) => [
    name,
    Number(duration),
  ]);
}

/** One word for a shell: an apostrophe in it ends the quotation, stands escaped, and a new one begins. */
function quoted(word) {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
