// The page: shows the links of this Driftless as they are, and searches in what one of them writes. It only asks; every
// address is relative, so that the page also works behind a path of somebody else's.

const PERIOD_MS = 500;
const TYPING_MS = 120;
const AGE_MS = 100;
const FRESH_MS = 3_000;
const LINE_MS = 60_000;
const SHOWN_MAX = 12;
const NEAREST = 50;
/** Where the token is kept until the tab is closed, if one is asked for; never in an address. */
const TOKEN = "driftless-token";

const at = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat("en");

/** What is known now. */
const now = {
  isOurs: false, // the indexes are our own: searches are answered here
  links: [],
  link: null,
  index: null, // what there is to search, see `describe`
  text: "",
  asked: 0, // number of the last search; an older answer is thrown away
  vectors: new Map(), // of the text that was searched last, by model
  samples: [],
  login: null, // while a token is asked for
};

// ---------------------------------------------------------------- asking

async function ask(method, path, body) {
  const token = sessionStorage.getItem(TOKEN);
  const answer = await fetch(path, {
    method,
    headers: {
      accept: "application/json",
      ...(body && { "content-type": "application/json" }),
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: body && JSON.stringify(body),
  });
  const value = await answer.json();
  if (answer.ok) return value;
  if (answer.status === 401) {
    // Somebody else may have logged in meanwhile.
    if (token === sessionStorage.getItem(TOKEN)) await loggedIn(token && value.error?.reason);
    return ask(method, path, body);
  }
  const { reason, advice } = value.error ?? {};
  throw new Error([reason ?? `${method} ${path}: ${answer.status}`, advice].filter(Boolean).join("; "));
}

/** Asks for a token, once for all who wait for one, and resolves when somebody has given it. */
function loggedIn(why) {
  sessionStorage.removeItem(TOKEN);
  now.login ??= new Promise((done) => {
    const form = at("login");
    const main = document.querySelector("main");
    say("login-trouble", why || "");
    form.hidden = false;
    main.hidden = true;
    at("token").focus();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, at("token").value.trim());
      at("token").value = "";
      form.hidden = true;
      main.hidden = false;
      now.login = null;
      done();
    }, { once: true });
  });
  return now.login;
}

/** Runs `look` again and again, one at a time, while somebody can see the page. */
async function keepLooking(look) {
  for (;;) {
    if (!document.hidden) await trying(look);
    await new Promise((done) => setTimeout(done, PERIOD_MS));
  }
}

/** What went wrong with each thing that is done again and again, until it goes well. */
const troubles = new Map();

async function trying(task) {
  try {
    await task();
    troubles.delete(task);
  } catch (error) {
    const isAway = error instanceof TypeError;
    troubles.set(task, isAway ? "Driftless does not answer. What is shown is the last that it said." : error.message);
  }
  say("trouble", [...new Set(troubles.values())].join(" "));
}

function say(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
  if (place.classList.contains("trouble")) place.hidden = text === "";
}

// ---------------------------------------------------------------- links

async function lookAtLinks() {
  const { links } = await ask("GET", "_links");
  now.links = links;
  showChoice();
  const chosen = links.find((link) => link.id === at("choice").value) ?? links[0] ?? null;
  const isAnother = chosen?.id !== now.link?.id;
  now.link = chosen;
  if (isAnother) forget();
  showLink(chosen);
  if (chosen && now.isOurs && now.index?.name !== chosen.index) {
    now.index = await describe(chosen.index);
    trying(searchAgain);
  }
}

function forget() {
  now.index = null;
  now.samples = [];
  at("results").replaceChildren();
}

function showChoice() {
  const ids = now.links.map((link) => link.id);
  const select = at("choice");
  at("links-shown").hidden = ids.length < 2;
  if (ids.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  const before = select.value;
  select.replaceChildren(...ids.map((id) => new Option(id, id, false, id === before)));
}

function showLink(link) {
  const state = at("state");
  say("state", link ? link.state.replace("_", " ") : "no link");
  state.classList.toggle("is-bad", link?.state === "failed");
  state.classList.toggle("is-waiting", link !== null && !["running", "failed"].includes(link.state));
  say("link-errors", link?.errors ?? "");
  showStatement(link?.statement || "There is none yet. CALL dbms_etl.sync_by_map(…) makes one; docs/statements.md says how.");
  showLag(link);
  showFacts(link);
  showSearch(link);
}

/** Long names may be broken behind their points and brackets. */
function showStatement(text) {
  const place = at("statement");
  if (place.textContent === text) return;
  place.replaceChildren(...text.split(/(?<=[.,(])/).flatMap((part) => [part, element("wbr")]));
}

function showFacts(link) {
  const facts = link === null ? [] : [
    ["from", link.table],
    ["to", link.index],
    ["copied", link.snapshot && `${numbers.format(link.snapshot.rows)} rows`],
    ["documents", now.index?.count !== undefined && numbers.format(now.index.count)],
    ["made", `${link.created_at} UTC`],
    ["restarts", link.restarts > 0 && numbers.format(link.restarts)],
  ];
  const shown = facts.filter(([, value]) => value);
  const text = JSON.stringify(shown);
  const list = at("facts");
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  list.replaceChildren(...shown.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

/** A link into a cluster is searched there. */
function showSearch(link) {
  const isHere = now.isOurs && link !== null;
  at("form").hidden = !isHere;
  document.querySelector("main").classList.toggle("is-alone", !isHere);
  const where = link && !now.isOurs ? `The documents are in the index ${link.index} of the search cluster: search there.` : "";
  say("note-of-search", where);
}

// ---------------------------------------------------------------- lag

function showLag(link) {
  const lag = lagOf(link);
  const time = Date.now();
  now.samples.push({ time, lag });
  now.samples = now.samples.filter((sample) => sample.time > time - LINE_MS - 2 * PERIOD_MS);
  const text = lag === null ? "–" : numbers.format(lag);
  const place = at("lag");
  if (place.dataset.shown !== text) {
    place.dataset.shown = text;
    place.replaceChildren(text, ...(lag === null ? [] : [element("small", "", "ms")]));
  }
  say("lag-short", lag === null ? "" : `${text} ms behind`);
  drawLine(time);
}

/** Milliseconds; null before the stream. */
function lagOf(link) {
  if (!link || link.latency_ms < 0) return null;
  return Math.max(link.latency_ms, link.acked_after_ms, 0);
}

function drawLine(time) {
  const known = now.samples.filter((sample) => sample.lag !== null);
  const top = roundedUp(Math.max(10, ...known.map((sample) => sample.lag)));
  const points = known.map(({ time: when, lag }) => {
    const x = 300 * (1 - (time - when) / LINE_MS);
    return `${x.toFixed(1)},${(70 - 66 * (lag / top)).toFixed(1)}`;
  });
  at("curve").setAttribute("points", points.join(" "));
  const left = points[0]?.split(",")[0];
  at("area").setAttribute("points", points.length ? `${left},71 ${points.join(" ")} 300,71` : "");
  say("scale-max", known.length ? `top: ${numbers.format(top)} ms` : "");
}

/** The next of 1, 2, 5, 10, 20, 50, … */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

// ---------------------------------------------------------------- what there is to search

/** The fields of an index by what the page does with them. */
async function describe(name) {
  const path = encodeURIComponent(name);
  const { mappings, settings } = (await ask("GET", path))[name];
  const fields = Object.entries(mappings.properties ?? {});
  const of = (...types) => fields.filter(([, field]) => types.includes(field.type)).map(([field]) => field);
  const dates = of("date");
  const index = {
    name,
    path,
    texts: of("text"),
    keywords: of("keyword"),
    vectors: of("knn_vector"),
    date: dates.find((field) => /updat|modif|chang/i.test(field)) ?? dates[0],
    types: Object.fromEntries(fields.map(([field, { type }]) => [field, type])),
  };
  index.embeddings = await embeddingsOf(settings.index?.default_pipeline, index.vectors);
  at("query").placeholder = `Search ${name}`;
  say("query-label", `Search ${name}`);
  showModels([...new Set(index.embeddings.map(({ model }) => model))]);
  return index;
}

/** Which model fills which vector field, by the index's own pipeline. */
async function embeddingsOf(pipeline, vectors) {
  if (!pipeline || vectors.length === 0) return [];
  const { processors } = (await ask("GET", `_ingest/pipeline/${encodeURIComponent(pipeline)}`))[pipeline];
  const pairs = processors.flatMap(({ text_embedding: embedding }) =>
    Object.values(embedding?.field_map ?? {}).map((field) => ({ field, model: embedding.model_id })));
  return pairs.filter(({ field }) => vectors.includes(field));
}

function showModels(models) {
  at("model-card").hidden = models.length === 0;
  const names = models.flatMap((model, number) => [number ? " and " : "", code(model)]);
  const isHashing = models.every((model) => /^hashing(-\d+)?$/.test(model));
  const words = isHashing
    ? ["Vectors come from the built-in model ", ...names,
      ". It knows likeness of words, not meaning: “hedphones” finds headphones, “couch” finds no sofa. For meaning, put a model of your own into the pipeline; ",
      code("docs/pipeline.md"), " says how."]
    : ["Vectors come from ", ...names, ", as the index's pipeline says."];
  at("model").replaceChildren(...words);
}

async function vectorOf(model, text) {
  const known = now.vectors.get(model);
  if (known?.text === text) return known.vector;
  const path = `_plugins/_ml/models/${encodeURIComponent(model)}/_predict`;
  const answer = await ask("POST", path, { parameters: { input: [text] } });
  const vector = answer.inference_results[0].output[0].data;
  now.vectors.set(model, { text, vector });
  return vector;
}

// ---------------------------------------------------------------- searching

async function search() {
  const { index, text } = now;
  if (!index) return;
  const number = ++now.asked;
  const body = text === "" ? latest(index) : await hybrid(index, text);
  body._source = { excludes: index.vectors };
  const { hits } = await ask("POST", `${index.path}/_search`, { ...body, size: SHOWN_MAX });
  if (number !== now.asked || index !== now.index) return;
  showHits(hits.hits, text);
}

async function searchAgain() {
  await search();
  const { index } = now;
  if (index) index.count = (await ask("GET", `${index.path}/_count`)).count;
}

function latest(index) {
  return { query: { match_all: {} }, ...(index.date && { sort: [{ [index.date]: "desc" }] }) };
}

async function hybrid(index, text) {
  const matches = [...index.texts, ...index.keywords].map((field) => ({ match: { [field]: text } }));
  const words = { bool: { should: matches } };
  if (index.embeddings.length === 0) return { query: words };
  const queries = [words];
  for (const { field, model } of index.embeddings) {
    queries.push({ knn: { [field]: { vector: await vectorOf(model, text), k: NEAREST } } });
  }
  return { query: { hybrid: { queries } } };
}

// ---------------------------------------------------------------- results

/** Brings the list to `hits` and touches only what differs, so that nothing flickers. */
function showHits(hits, text) {
  const list = at("results");
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...list.children].indexOf(focused) : -1;
  const isSameText = list.dataset.text === text;
  const before = new Map([...list.children].map((item) => [item.dataset.id, item]));
  hits.forEach((hit, position) => {
    const item = before.get(hit._id) ?? newItem(hit, isSameText && before.size > 0);
    before.delete(hit._id);
    fill(item, hit, text);
    if (list.children[position] !== item) list.insertBefore(item, list.children[position] ?? null);
  });
  for (const item of before.values()) item.remove();
  list.dataset.text = text;
  if (focused && document.activeElement !== focused) {
    (focused.isConnected ? focused : list.children[Math.min(place, hits.length - 1)] ?? at("query")).focus();
  }
  if (!isSameText || hits.length === 0) say("summary", summary(hits.length, text));
  showAges();
}

function summary(count, text) {
  if (text === "") return now.index.date ? "The latest changes" : "Documents";
  return count === 0 ? `Nothing found for “${text}”` : `The best ${count} for “${text}”, by words${now.index.embeddings.length ? " and by vectors" : ""}`;
}

function newItem(hit, isArriving) {
  const item = element("li", isArriving ? "hit is-new" : "hit");
  item.dataset.id = hit._id;
  item.tabIndex = -1;
  const top = element("div", "top");
  top.append(element("h3", "title"), element("span", "age"));
  item.append(top, element("p", "text"), element("dl", "fields"));
  return item;
}

function fill(item, hit, text) {
  const { index } = now;
  const source = hit._source;
  const [title, ...texts] = index.texts;
  const isKnown = item.dataset.version !== undefined;
  item.dataset.version = "";
  item.dataset.changed = index.date && source[index.date] ? Date.parse(source[index.date]) : "";
  marked(item.querySelector(".title"), title ? source[title] ?? "" : hit._id, text, isKnown);
  marked(item.querySelector(".text"), texts.map((field) => source[field] ?? "").join(" "), text, isKnown);
  const shown = Object.keys(index.types)
    .filter((field) => !["text", "knn_vector"].includes(index.types[field]) && field !== index.date)
    .map((field) => [field, valueOf(source[field], index.types[field])]);
  if (text !== "") shown.push(["score", hit._score?.toFixed(3) ?? "–"]);
  fillFields(item.querySelector(".fields"), shown, isKnown);
}

function fillFields(list, shown, isKnown) {
  const names = shown.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...shown.map(([name]) => {
      const pair = element("div");
      pair.append(element("dt", "", name), element("dd"));
      return pair;
    }));
    isKnown = false;
  }
  shown.forEach(([name, value], place) => {
    const pair = list.children[place];
    if (pair.lastChild.textContent === value) return;
    pair.lastChild.textContent = value;
    if (isKnown && name !== "score") flash(pair);
  });
}

function flash(place) {
  place.classList.remove("flash");
  // Reading a measure makes the browser see the class gone, so that the animation starts anew.
  void place.offsetWidth;
  place.classList.add("flash");
  place.addEventListener("animationend", () => place.classList.remove("flash"), { once: true });
}

function valueOf(value, type) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : String(value);
  const isMoneyLike = ["double", "float"].includes(type) && Math.abs(value * 100 - Math.round(value * 100)) < 1e-6;
  return isMoneyLike ? value.toFixed(2) : String(value);
}

/** Puts a text into its place, with the words of the query marked. */
function marked(place, text, query, isKnown) {
  const key = `${query}\n${text}`;
  if (place.dataset.key === key) return;
  const isChanged = isKnown && place.textContent !== text;
  place.dataset.key = key;
  const words = query.split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 1);
  const parts = words.length === 0 ? [text] : text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})`, "giu"));
  place.replaceChildren(...parts.map((part, number) => (number % 2 ? element("mark", "", part) : part)));
  if (isChanged) flash(place);
}

function showAges() {
  const time = Date.now();
  for (const item of at("results").children) {
    const changed = Number(item.dataset.changed);
    const age = Math.max(0, time - changed);
    const place = item.querySelector(".age");
    place.textContent = changed ? ageText(age) : "";
    item.classList.toggle("is-fresh", changed > 0 && age < FRESH_MS);
  }
}

function ageText(ms) {
  if (ms < 10_000) return `${numbers.format(ms)} ms old`;
  if (ms < 60_000) return `${numbers.format(Math.floor(ms / 100) * 100)} ms old`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s old`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3_600)} h old`;
  return `${Math.floor(seconds / 86_400)} days old`;
}

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function code(text) {
  return element("code", "", text);
}

// ---------------------------------------------------------------- hands

function typed() {
  now.text = at("query").value.trim();
  trying(searchAgain);
}

function listen() {
  let waiting;
  at("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(typed, TYPING_MS);
  });
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    typed();
  });
  at("choice").addEventListener("change", () => trying(lookAtLinks));
  document.addEventListener("keydown", pressed);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || now.login) return;
  const query = at("query");
  const isInBox = document.activeElement === query;
  const isElsewhere = document.activeElement?.matches("select, pre");
  if (event.key === "/" && !isInBox) {
    query.focus();
    query.select();
  } else if (event.key === "Escape") {
    query.value = "";
    query.focus();
    typed();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && !isElsewhere) {
    move(event.key === "ArrowDown" ? 1 : -1);
  } else {
    return;
  }
  event.preventDefault();
}

/** From the box to the first result, from one to the next, and above the first back to the box. */
function move(by) {
  const items = [...at("results").children];
  const from = items.indexOf(document.activeElement);
  const to = from + by;
  if (to < 0) at("query").focus();
  else items[Math.min(to, items.length - 1)]?.focus();
}

async function start() {
  listen();
  setInterval(showAges, AGE_MS);
  await trying(async () => {
    const { version } = await ask("GET", "./");
    now.isOurs = version.distribution === "opensearch";
  });
  keepLooking(lookAtLinks);
  if (now.isOurs) keepLooking(searchAgain);
}

start();
