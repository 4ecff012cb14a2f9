"use strict";
// The page of `hmnet-pipe serve`. Whatever comes from a post, a model or the server enters it as text.

const at = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const sizeOf = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

const state = {
  facts: null, // of /health
  image: null, // the chosen file, a Blob
  url: null, // of its preview
  photo: null, // the address of the image that is shown with the answer
  asked: null, // the AbortController of the request in progress
  shown: null, // the post and the answers that are shown
};

function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function problem(sentence) {
  at("problem").textContent = sentence;
  at("problem").hidden = !sentence;
}

// ---------------------------------------------------------------- what is asked

function choose(blob, name) {
  if (blob && blob.size > state.facts.most_bytes) {
    at("image").value = "";
    problem(`${name} has ${sizeOf(blob.size)}, and at most ${sizeOf(state.facts.most_bytes)} can be sent.`);
    return false;
  }
  problem("");
  if (state.url) URL.revokeObjectURL(state.url);
  state.image = blob;
  state.url = blob ? URL.createObjectURL(blob) : null;
  at("chosen").hidden = !blob;
  at("preview").hidden = false;
  if (blob) at("preview").src = state.url;
  else at("preview").removeAttribute("src");
  at("filename").textContent = blob ? `${name}, ${sizeOf(blob.size)}` : "";
  return true;
}

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) || files[0];
  if (file) choose(file, file.name || "The pasted image");
}

// Where a text stands in the post, in characters as Python counts them: an emoji is one.
function span(text, part, name) {
  const start = part ? text.indexOf(part) : -1;
  if (start < 0) throw new Error(`The ${name} must be words of the text.`);
  const first = [...text.slice(0, start)].length;
  return [first, first + [...part].length];
}

function formOf(post, withImage) {
  const form = new FormData();
  form.append("text", post.text);
  if (post.head) form.append("head", JSON.stringify(post.head));
  if (post.tail) form.append("tail", JSON.stringify(post.tail));
  if (withImage && post.image) form.append("image", post.image, "image");
  return form;
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(new DOMException("", "AbortError"))));
  });

const told = (error) => problem(error.message);

async function fetched(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is `hmnet-pipe serve` still running?");
  }
}

async function ask(post, withImage, signal) {
  for (;;) {
    const response = await fetched("predict", { method: "POST", body: formOf(post, withImage), signal });
    if (response.status === 503) {
      at("status").textContent = "The model is busy. Waiting …";
      await pause(Number(response.headers.get("Retry-After")) || 1, signal);
      continue;
    }
    const answer = await response.json().catch(() => ({ error: "The server's answer cannot be read." }));
    if (!response.ok) throw new Error(answer.error || `The server answers ${response.status}.`);
    return answer;
  }
}

async function run() {
  problem("");
  if (state.asked) state.asked.abort();
  const asked = (state.asked = new AbortController());
  try {
    const text = at("text").value;
    const post = { text, image: state.image };
    if (!at("pair").hidden) {
      post.head = span(text, at("head").value, "head");
      post.tail = span(text, at("tail").value, "tail");
    }
    at("status").textContent = "Looking …";
    const shown = { post, image: await ask(post, true, asked.signal), without: null };
    if (post.image && at("compare").checked) shown.without = await ask(post, false, asked.signal);
    state.shown = shown;
    await show();
    at("status").textContent = said(shown.image);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("status").textContent = "";
    at("results").hidden = true; // what is there is of another post
    state.shown = null;
    problem(error.message);
  } finally {
    if (state.asked === asked) state.asked = null;
  }
}

function said(answer) {
  const count = (list, one, many) => `${list.length} ${list.length === 1 ? one : many}`;
  const parts = [];
  if (state.facts.entities) parts.push(count(answer.entities, "mention", "mentions"));
  if (state.facts.relations) parts.push(count(answer.relations, "relation", "relations"));
  return `Found ${parts.join(" and ")}.`;
}

// ---------------------------------------------------------------- what is shown

const TYPES = ["PER", "LOC", "ORG", "MISC"];

function colour(type) {
  const known = TYPES.indexOf(type);
  if (known >= 0) return known;
  let sum = 0;
  for (const letter of type) sum += letter.codePointAt(0);
  return 4 + (sum % 2);
}

async function show() {
  const { post, image, without } = state.shown;
  at("results").hidden = false;
  const sides = at("sides");
  sides.replaceChildren();
  sides.classList.toggle("two", Boolean(without));
  sides.append(side(post.image && state.facts.reads_images ? "With the image" : "Found", image));
  if (without) sides.append(side("Without the image", without));
  await photo(post, image);
}

function side(title, answer) {
  const part = made("section", "side");
  part.append(made("h2", "", title), words(answer));
  if (state.facts.entities) {
    const found = answer.entities.map((one) => `${one.word}: ${one.entity_group}, ${percent(one.score)}`);
    part.append(made("h3", "", "Mentions"), list(found, "No mention was found."));
  }
  if (state.facts.relations) {
    const characters = [...answer.text];
    const named = (end) =>
      typeof end === "number" ? answer.entities[end].word : characters.slice(...end).join("");
    const found = answer.relations.map(
      (one) => `${named(one.head)} → ${named(one.tail)}: ${one.relation}, ${percent(one.score)}`,
    );
    part.append(made("h3", "", "Relations"), list(found, "No relation was found."));
  }
  if (answer.truncated) part.append(made("p", "quiet", "The end of the text is longer than the model reads."));
  return part;
}

function list(items, nothing) {
  if (!items.length) return made("p", "quiet", nothing);
  const all = made("ul");
  all.append(...items.map((item) => made("li", "", item)));
  return all;
}

// The text with its mentions marked. Each word that the model explains can be hovered over or focused.
function words(answer) {
  const characters = [...answer.text]; // as Python counts them
  const explained = answer.explanation ? answer.explanation.spans : [];
  const text = made("p", "text");
  const marks = answer.entities.map((one) => ({ ...one, kind: "mention" }));
  if (!marks.length && answer.relations.length && Array.isArray(answer.relations[0].head)) {
    for (const name of ["head", "tail"]) {
      const [start, end] = answer.relations[0][name];
      marks.push({ start, end, entity_group: name, kind: "argument" });
    }
  }
  marks.sort((one, other) => one.start - other.start);
  const spans = explained.map((ends, number) => ({ ends, number })).filter((one) => one.ends);
  spans.sort((one, other) => one.ends[0] - other.ends[0]);

  const fill = (parent, from, to) => {
    let here = from;
    for (const { ends, number } of spans) {
      if (ends[0] < here || ends[1] > to) continue;
      parent.append(characters.slice(here, ends[0]).join(""));
      const word = made("span", "word", characters.slice(...ends).join(""));
      word.dataset.number = number;
      parent.append(word);
      here = ends[1];
    }
    parent.append(characters.slice(here, to).join(""));
  };

  let here = 0;
  for (const one of marks) {
    if (one.start < here) continue;
    fill(text, here, one.start);
    const mark = made("mark", `type-${colour(one.entity_group)}`);
    mark.dataset.type = one.entity_group;
    fill(mark, one.start, one.end);
    const label = one.kind === "mention" ? `${one.entity_group} ${percent(one.score)}` : one.entity_group;
    mark.append(made("span", "type", label));
    text.append(mark);
    here = one.end;
  }
  fill(text, here, characters.length);
  if (spans.length) explorable(text, answer.explanation);
  return text;
}

// One tab stop: the arrow keys go from word to word.
function explorable(text, explanation) {
  const all = [...text.querySelectorAll(".word")];
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Words of the post: the arrow keys go from one to the next");
  all.forEach((word, place) => {
    word.tabIndex = place ? -1 : 0;
    word.setAttribute("role", "button");
    const on = () => light(explanation, word, all);
    word.addEventListener("mouseenter", on);
    word.addEventListener("focus", on);
    word.addEventListener("click", () => word.focus());
  });
  text.addEventListener("mouseleave", () => {
    const focused = all.find((word) => word === document.activeElement);
    light(explanation, focused || null, all);
  });
  text.addEventListener("focusout", () => light(explanation, null, all));
  text.addEventListener("keydown", (event) => {
    const place = all.indexOf(document.activeElement);
    const steps = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 };
    const next = all[steps[event.key]];
    if (!next || place < 0) return;
    event.preventDefault();
    all[place].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// The mean over layers of what a word gives to each part of the image.
function shares(explanation, number) {
  const layers = explanation.attention;
  return explanation.regions.map(
    (_, region) => layers.reduce((sum, layer) => sum + layer[number][region], 0) / layers.length,
  );
}

async function photo(post, answer) {
  const explanation = answer.explanation;
  at("photo").hidden = !post.image || !state.facts.reads_images;
  at("frame").querySelectorAll(".box, .lit").forEach((one) => one.remove());
  at("regions").replaceChildren();
  if (at("photo").hidden) return;
  if (state.photo) URL.revokeObjectURL(state.photo);
  state.photo = at("shown").src = URL.createObjectURL(post.image);
  // The server reads more formats than a browser.
  at("frame").hidden = !(await at("shown").decode().then(() => true, () => false));
  const { width, height } = explanation
    ? explanation.image
    : { width: at("shown").naturalWidth, height: at("shown").naturalHeight };
  const place = (element, box) => {
    element.style.left = `${(100 * box.xmin) / width}%`;
    element.style.top = `${(100 * box.ymin) / height}%`;
    element.style.width = `${(100 * (box.xmax - box.xmin)) / width}%`;
    element.style.height = `${(100 * (box.ymax - box.ymin)) / height}%`;
    at("frame").append(element);
  };
  for (const { box } of explanation ? explanation.regions : []) {
    const whole = box.xmax - box.xmin >= width && box.ymax - box.ymin >= height;
    place(made("div", whole ? "lit whole" : "lit"), box);
  }
  for (const object of answer.objects) {
    const box = made("div", "box");
    box.append(made("span", "", `${object.label} ${percent(object.score)}`));
    place(box, object.box);
  }
  if (!explanation) {
    at("looking").textContent = "This model does not say what its words look at.";
    return;
  }
  // A grid has too many cells for a list that anybody reads.
  if (explanation.over !== "cells") {
    at("regions").append(
      ...explanation.regions.map((region) => {
        const item = made("li");
        const bar = made("div", "bar");
        bar.append(made("div"));
        item.append(made("span", "name", region.label), bar, made("span", "share", "–"));
        return item;
      }),
    );
  }
  light(explanation, null, []);
}

// Light up what a word looks at, or nothing.
function light(explanation, word, all) {
  all.forEach((one) => one.classList.toggle("on", one === word));
  const none = !word;
  at("frame").classList.toggle("lighting", !none);
  const number = none ? -1 : Number(word.dataset.number);
  const own = none ? explanation.regions.map(() => 0) : shares(explanation, number);
  // One scale for all words of the post, so that one that looks little at the image shows it.
  explanation.brightest ??= Math.max(1e-9, ...explanation.spans.flatMap((_, i) => shares(explanation, i)));
  [...at("frame").querySelectorAll(".lit")].forEach((element, region) => {
    const share = own[region] / explanation.brightest;
    element.style.opacity = none ? 0 : String((element.classList.contains("whole") ? 0.9 : 0.65) * share);
  });
  [...at("regions").children].forEach((item, region) => {
    item.querySelector(".bar div").style.width = `${(100 * own[region]) / explanation.brightest}%`;
    item.querySelector(".share").textContent = none ? "–" : percent(own[region]);
  });
  const hint = "Hover over a word, or go to it by keyboard, to see what it looks at.";
  if (none) {
    at("looking").textContent = hint;
    return;
  }
  const best = own.indexOf(Math.max(...own));
  const sum = own.reduce((total, share) => total + share, 0);
  const most = explanation.regions[best].label;
  // What are gates and not shares may add up to more than all.
  at("looking").textContent =
    sum <= 1.01
      ? `“${word.textContent}” gives ${percent(sum)} of its attention to the image, most of it to: ${most}.`
      : `“${word.textContent}” looks most at: ${most}.`;
}

// ---------------------------------------------------------------- examples, events

async function pick() {
  const example = state.examples[at("examples").value];
  if (!example) return;
  at("text").value = example.text;
  const characters = [...example.text];
  for (const name of ["head", "tail"]) {
    at(name).value = example[name] ? characters.slice(...example[name]).join("") : "";
  }
  if (!state.facts.reads_images) {
    run();
    return;
  }
  const response = await fetched(example.image.slice(1));
  if (!response.ok) throw new Error((await response.json()).error);
  const image = await response.blob();
  if (state.examples[at("examples").value] !== example) return; // another one was picked meanwhile
  at("image").value = "";
  if (choose(image, "The image of the test post")) run();
}

async function start() {
  state.facts = await (await fetched("health")).json();
  const { facts } = state;
  at("model").textContent = `${facts.system}, ${facts.model}`;
  at("drop").hidden = at("switch").hidden = !facts.reads_images;
  at("pair").hidden = facts.entities;
  state.examples = (await (await fetched("examples")).json()).examples;
  at("picked").hidden = !state.examples.length;
  state.examples.forEach((example, number) => {
    const option = made("option", "", example.text.length > 90 ? `${example.text.slice(0, 90)} …` : example.text);
    option.value = number;
    at("examples").append(option);
  });
}

at("post").addEventListener("submit", (event) => (event.preventDefault(), run()));
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("post").requestSubmit();
});
at("image").addEventListener("change", (event) => take(event.target.files));
at("remove").addEventListener("click", () => {
  at("image").value = "";
  choose(null, "");
  at("image").focus();
});
at("preview").addEventListener("error", () => (at("preview").hidden = true));
at("examples").addEventListener("change", () => pick().catch(told));
at("compare").addEventListener("change", () => {
  if (state.shown) run();
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length && state.facts && state.facts.reads_images) take(event.clipboardData.files);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault(); // a file beside the field must not replace the page
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && state.facts && state.facts.reads_images) take(event.dataTransfer.files);
  });
}
start().catch(told);
