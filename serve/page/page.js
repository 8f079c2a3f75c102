// The page: what is asked, what runs, and what is shown.

import { drawEntities, drawTrees } from "./drawings.js";
import { annotate, curlCommand, getModels } from "./requests.js";
import { samplesFor } from "./samples.js";

const TASKS = ["ner", "parse"];
const TITLES = { ner: "Entities", parse: "Trees" };
const STAGES = {
  read: "reading", segment: "splitting", queue: "waiting", engine: "the model", write: "writing",
};

const part = (id) => document.getElementById(id);
const languageNames = new Intl.DisplayNames(["en"], { type: "language" });

let offered = [];
let running = new AbortController();

part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
part("form").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  run();
});
part("key").addEventListener("change", start);
TASKS.forEach((task) => part(`${task}-model`).addEventListener("change", () => showReached(task)));
start();

/** Offers the server's models and texts in their languages, or says why it cannot. */
async function start() {
  say("");
  try {
    offer(await getModels(part("key").value));
  } catch (error) {
    report(error);
  }
}

function offer(models) {
  for (const task of TASKS) {
    const fitting = models.filter((model) => model.task === task);
    part(`${task}-model`).replaceChildren(...fitting.map(modelOption));
    part(`${task}-model`).disabled = part(task).disabled = fitting.length === 0;
    part(task).checked = fitting.length > 0;
  }
  offered = models;
  TASKS.forEach(showReached);
  const samples = samplesFor([...new Set(models.map((model) => model.language))]);
  part("samples").replaceChildren(...samples.map(sampleButton));
  part("text").value ||= samples[0].text;
}

function modelOption(model) {
  const language = languageNames.of(model.language);
  const label = `${model.id} (${language}${model.role === "teacher" ? ", teacher" : ""})`;
  const option = new Option(label, model.id, model.default, model.default);
  option.lang = model.language;
  return option;
}

function sampleButton({ language, text }) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", textContent: text, lang: language, dir: "auto" });
  button.addEventListener("click", () => {
    part("text").value = text;
    TASKS.forEach((task) => chooseLanguage(part(`${task}-model`), language));
    run();
  });
  return button;
}

function chooseLanguage(select, language) {
  if (select.selectedOptions[0]?.lang === language) return;
  const fitting = [...select.options].find((option) => option.lang === language);
  if (fitting) fitting.selected = true;
  select.dispatchEvent(new Event("change"));
}

/** Beside a task's model what it reached on its test split, as far as its bundle says. */
function showReached(task) {
  const model = offered.find(({ id }) => id === part(`${task}-model`).value);
  part(`${task}-reached`).textContent = reachedInWords(model?.scores?.test ?? {});
}

function reachedInWords({ f1, las, kept, agreement }) {
  const score = f1 === undefined ? ["LAS", las] : ["F1", f1];
  const parts = [];
  if (score[1] !== undefined) parts.push(`${score[0]} ${score[1].toFixed(1)} in the test`);
  if (kept !== undefined) parts.push(`${kept.toFixed(0)} % of its teacher's`);
  if (agreement !== undefined) parts.push(`agreement with its teacher ${agreement.toFixed(1)}`);
  return parts.join(", ");
}

/** Asks for every chosen task and shows the answers; a run that is still under way is given up. */
async function run() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  part("results").ariaBusy = "true";
  try {
    if (!offered.length) await start();
    say("Running…");
    const sections = await Promise.all(tasksToRun().map((task) => answerSection(task, signal)));
    part("results").replaceChildren(...sections);
    say("Done.");
  } catch (error) {
    if (signal.aborted) return;
    part("results").replaceChildren();
    report(error);
  }
  part("results").ariaBusy = "false";
}

function tasksToRun() {
  const tasks = TASKS.filter((task) => part(task).checked);
  if (!tasks.length) throw new Error("Choose entities, trees or both.");
  if (!part("text").value.trim()) throw new Error("Type or paste a text first.");
  return tasks;
}

/** The answer to one task: how it looks, who gave it and how fast, and the command that asks the same. */
async function answerSection(task, signal) {
  const [text, key] = [part("text").value, part("key").value];
  const model = part(`${task}-model`).value || undefined;
  const { direction } = getComputedStyle(part("text"));
  const { body, milliseconds, stages } = await annotate(task, text, model, key, signal);
  const answer = task === "ner" ? drawEntities(body, text, direction) : drawTrees(body);

  const section = part("answer").content.cloneNode(true);
  section.querySelector("h2").textContent = TITLES[task];
  section.querySelector(".drawing").append(...answer.elements);
  const by = answer.model ?? model ?? "the default model";
  section.querySelector(".found").textContent = `${answer.found} by ${by}`;
  section.querySelector(".time").textContent = timeInWords(milliseconds, stages);
  const command = section.querySelector("code");
  command.textContent = curlCommand(task, text, model, key);
  section.querySelector("button").addEventListener("click", () => copy(command));
  return section;
}

function timeInWords(milliseconds, stages) {
  const roundTrip = `${rounded(milliseconds)} ms there and back`;
  if (!stages.length) return roundTrip;
  const inServer = stages.reduce((sum, [, duration]) => sum + duration, 0);
  const each = stages.map(([name, duration]) => `${STAGES[name] ?? name} ${rounded(duration)}`);
  return `${roundTrip}, ${rounded(inServer)} ms of it in the server: ${each.join(", ")}`;
}

function rounded(milliseconds) {
  return milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0);
}

async function copy(command) {
  try {
    await navigator.clipboard.writeText(command.textContent);
    say("Copied.");
  } catch {
    // A page that came over plain HTTP from another machine may not write to the clipboard.
    getSelection().selectAllChildren(command);
    say("Selected: copy it with Ctrl + C.");
  }
}

function report(error) {
  say(error.message, "error");
  if (error.status !== 401) return;
  part("access").open = true;
  part("key").focus();
}

function say(words, kind = "") {
  part("message").textContent = words;
  part("message").className = kind;
  if (words) part("message").scrollIntoView({ block: "nearest" });
}
