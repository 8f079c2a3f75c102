// Answers as elements: a text with its entities marked, and the trees of its sentences.

// displaCy's hues for the usual labels; every other label gets one by its letters.
const HUES = {
  PER: 295, PERSON: 295, ORG: 200, LOC: 45, GPE: 75, NORP: 320, FAC: 230, EVENT: 105, DATE: 165, TIME: 165,
};

/** The answer of /ner. Its offsets count code points; a JavaScript string has two units for some of these. */
export function drawEntities({ model, results: [{ entities }] }, text, direction) {
  const points = Array.from(text);
  const marked = make("p", { className: "entities", dir: direction });
  let end = 0;
  for (const entity of entities) {
    marked.append(points.slice(end, entity.start_char).join(""), mark(entity));
    end = entity.end_char;
  }
  marked.append(points.slice(end).join(""));
  return { model, found: counted(entities.length, "entity", "entities"), elements: [marked] };
}

/** The answer of /parse as HTML. Only its drawings are taken over; no script of it would ever run. */
export function drawTrees(fragment) {
  const parsed = new DOMParser().parseFromString(fragment, "text/html");
  const figures = [...parsed.querySelectorAll("figure.tree")];
  return {
    model: figures[0]?.dataset.model,
    found: counted(figures.length, "tree", "trees"),
    elements: figures.map((figure) => tree(figure.querySelector("svg"), figure.dir)),
  };
}

function mark({ label, text, score }) {
  const description = `${label}, score ${score.toFixed(2)}`;
  const marked = make(
    "mark",
    { dir: "auto", tabIndex: 0, role: "note", title: description, ariaLabel: `${text}: ${description}` },
    text,
    make("span", { className: "label" }, label, make("span", { className: "score" }, score.toFixed(2))),
  );
  marked.style.setProperty("--hue", HUES[label.toUpperCase()] ?? hueOf(label));
  return marked;
}

function hueOf(label) {
  return Array.from(label).reduce((hash, letter) => (hash * 31 + letter.codePointAt(0)) % 360, 0);
}

/** A tree that scrolls by itself, and its arrows as a list for those who cannot hover over them. */
function tree(drawing, dir) {
  const frame = make(
    "div",
    { className: "frame", dir, tabIndex: 0, role: "group", ariaLabel: "Tree" },
    document.importNode(drawing, true),
  );
  const arrows = Array.from(drawing.querySelectorAll("title"), (title) => make("li", {}, title.textContent));
  const list = make("details", {}, make("summary", {}, "As a list"), make("ul", {}, ...arrows));
  return make("figure", { className: "tree" }, frame, list);
}

function counted(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
