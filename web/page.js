const element = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
let code, edge, model;

// What a block of the page holds: gzip in base64.
async function embedded(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Calls into the module, after handing it a file where there is one; gives its answer, or throws.
function call(name, file) {
  if (file) {
    const at = edge.reserve(file.length);
    if (!at) throw new Error("not enough memory");
    new Uint8Array(edge.memory.buffer).set(file, at);
  }
  const worked = edge[name]();
  const bytes = new Uint8Array(edge.memory.buffer, edge.answer(), edge.answer_len());
  const answer = JSON.parse(new TextDecoder().decode(bytes));
  if (!worked) throw new Error(answer.error);
  return answer;
}

// A module that trapped is in no known state: a new one takes its place.
async function start() {
  edge = (await WebAssembly.instantiate(code)).exports;
  return call("load", model);
}

async function guarded(work) {
  try {
    return work();
  } catch (e) {
    if (!(e instanceof WebAssembly.RuntimeError)) throw e;
    await start();
    throw new Error("damaged: the decoder gave up");
  }
}

function describe(about) {
  element("about").textContent =
    `${about.name}: ${about.classes} classes, ${about.width}×${about.height} pixels, ${about.dtype}, ` +
    `${number(Math.ceil(about.file_bytes / 1024))} KiB, ${number(Math.round(about.macs / 1e5) / 10)} ` +
    `million multiply-accumulates (${about.isa})`;
}

function add(tag, parent, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

// A card for a file, above the others.
function card(name) {
  const article = document.createElement("article");
  element("results").prepend(article);
  const image = document.createElement("img");
  image.alt = "";
  const text = add("div", article);
  add("h2", text, name);
  return { article, image, text };
}

async function show(file) {
  const { article, image, text } = card(file.name);
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (file.name.endsWith(".edge")) {
      describe(await guarded(() => call("load", bytes)));
      model = bytes;
      add("p", text, "is now the model.");
      return;
    }
    image.src = URL.createObjectURL(file);
    article.prepend(image);
    const times = [performance.now()];
    await guarded(() => call("decode", bytes));
    times.push(performance.now());
    const answer = await guarded(() => call("run"));
    times.push(performance.now());
    article.dataset.logits = JSON.stringify(answer.logits);
    if (answer.distance !== undefined) article.dataset.distance = answer.distance;
    if (answer.unknown) add("p", text, "Unknown: like none of the pictures that the model was made with. Nearest:").className = "unknown";
    const list = add("ol", text);
    for (const { label, probability } of answer.classes) {
      const line = add("li", list);
      add("span", line, label);
      add("meter", line).value = probability;
      add("span", line, `${(probability * 100).toFixed(1)} %`);
    }
    if (answer.note) add("p", text, answer.note);
    if (element("why").checked) {
      if (answer.heatmap) await drawHeat(image, answer.heatmap).catch(() => add("p", text, "This browser does not show the picture."));
      else add("p", text, "This model does not tell where a class comes from.");
    }
    const [decoded, ran] = [times[1] - times[0], times[2] - times[1]];
    add("p", text, `decoded in ${decoded.toFixed(1)} ms, classified in ${ran.toFixed(1)} ms`)
      .className = "about";
  } catch (e) {
    add("p", text, e.message).className = "error";
  }
}

// One after another, so that answers and times are of one picture.
let queue = Promise.resolve();
function take(files) {
  for (const file of files) queue = queue.then(() => show(file));
}

element("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  take(event.dataTransfer.files);
});

queue = (async () => {
  try {
    code = await WebAssembly.compile(await embedded("wasm"));
    model = await embedded("model");
    describe(await start());
  } catch (e) {
    element("about").textContent = `This browser cannot run it: ${e.message}`;
    element("about").className = "error";
    element("drop").hidden = true;
  }
})();
