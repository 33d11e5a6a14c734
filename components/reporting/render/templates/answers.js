"use strict";
const PAGE = 50;
const index = JSON.parse(document.getElementById("index").textContent);
const titles = new Map(index.titles.map(([benchmark, skill, title]) => [benchmark + "\n" + skill, title]));
const [benchmarks, skills, outcomes] = ["benchmark", "skill", "outcome"].map(id => document.getElementById(id));
const [state, list, more] = ["state", "answers", "more"].map(id => document.getElementById(id));
const loaded = new Map();
let waiting = [], shown = 0, round = 0;

function mantisAnswers(chunk) { loaded.set(chunk.file, chunk.rows); }

function load(file) {
  if (loaded.has(file)) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = resolve;
    script.onerror = () => reject(new Error(file));
    document.head.append(script);
  });
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function fits(group, field) {
  return (field === "skill" || !skills.value || group[0] === skills.value)
    && (field === "outcome" || !outcomes.value || group[1] === outcomes.value);
}

function total(field, value) {
  const place = field === "skill" ? 0 : 1;
  return index.chunks.filter(chunk => chunk.benchmark === benchmarks.value).flatMap(chunk => chunk.groups)
    .filter(group => fits(group, field) && (!value || group[place] === value)).reduce((sum, group) => sum + group[2], 0);
}

function fill(select, field, values, all, text) {
  const before = select.value;
  select.replaceChildren(option("", `${all} (${total(field, "").toLocaleString("en")})`),
    ...values.map(value => option(value, `${text(value)} (${total(field, value).toLocaleString("en")})`)));
  select.value = ["", ...values].includes(before) ? before : "";
}

function fillAll() {
  const groups = index.chunks.filter(chunk => chunk.benchmark === benchmarks.value).flatMap(chunk => chunk.groups);
  fill(skills, "skill", [...new Set(groups.map(group => group[0]))], "all skills",
    skill => titles.get(benchmarks.value + "\n" + skill) || skill);
  fill(outcomes, "outcome", index.outcomes, "all outcomes", outcome => outcome);
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function card([id, skill, outcome, question, expected, response, images]) {
  const article = element("article", "", "answer");
  const heading = element("h2", id + " ");
  heading.append(element("span", titles.get(benchmarks.value + "\n" + skill) || skill, "soft"));
  const terms = document.createElement("dl");
  const mark = outcome === "right" ? "✓ right" : "✗ " + outcome;
  const rows = [["Outcome", mark, "outcome " + (outcome === "right" ? "right" : "wrong")], ["Question", question],
    ["Expected", expected], ["Response", response || "(empty)"]];
  if (images.length) rows.push(["Images", images.join("\n"), "small soft"]);
  for (const [term, text, kind] of rows) terms.append(element("dt", term), element("dd", text, kind));
  article.append(heading, terms);
  return article;
}

async function show() {
  const mine = round;
  const wanted = shown + PAGE;
  while (shown < wanted && waiting.length) {
    const chunk = waiting[0];
    try {
      await load(chunk.file);
    } catch (error) {
      state.textContent = `${error.message} cannot be loaded. Open this page where the report lies in its store.`;
      return;
    }
    if (mine !== round) return;
    const rows = loaded.get(chunk.file).filter(row => fits([row[1], row[2]])).slice(chunk.used);
    const taken = rows.slice(0, wanted - shown);
    list.append(...taken.map(card));
    shown += taken.length;
    if (taken.length < rows.length) chunk.used += taken.length;
    else waiting.shift();
  }
  const all = total("", "");
  state.textContent = all ? `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} answers` : "No such answer.";
  more.hidden = shown >= all;
}

function begin() {
  fillAll();
  round += 1;
  shown = 0;
  list.replaceChildren();
  waiting = index.chunks.filter(chunk => chunk.benchmark === benchmarks.value && chunk.groups.some(group => fits(group)))
    .map(chunk => ({file: chunk.file, used: 0}));
  return show();
}

benchmarks.append(...[...new Set(index.chunks.map(chunk => chunk.benchmark))].map(name => option(name, name)));
for (const select of [benchmarks, skills, outcomes]) select.addEventListener("change", begin);
more.addEventListener("click", show);
begin();
