const element = (id) => document.getElementById(id);
// Cards that stay; those of a camera would fill the memory of a phone.
const MOST = 50;

function add(tag, parent, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  parent.append(node);
  return node;
}

// A card for a picture, above the others.
function card(name, file) {
  const article = document.createElement("article");
  const image = add("img", article);
  image.alt = "";
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  image.addEventListener("error", () => image.classList.add("broken"));
  image.src = URL.createObjectURL(file);
  const text = add("div", article);
  add("h2", text, name);
  element("results").prepend(article);
  while (element("results").children.length > MOST) element("results").lastChild.remove();
  return { text, image, wait: add("p", text, "…", "muted") };
}

// Resolves when a token was given.
function login() {
  element("login").hidden = false;
  element("token").focus();
  return new Promise((go) => {
    element("login").addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", element("token").value);
      element("token").value = "";
      element("login").hidden = true;
      go();
    }, { once: true });
  });
}

// Sends a picture; what is busy is asked again, what wants a token gets one.
async function send(file, name) {
  const address = `/classify?top=5&time=true&heatmap=${element("why").checked}&file=${encodeURIComponent(name)}`;
  for (let tries = 1; ; tries += 1) {
    const headers = { "Content-Type": "application/octet-stream" };
    const token = sessionStorage.getItem("token");
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(address, { method: "POST", headers, body: file });
    if (answer.status === 401) {
      sessionStorage.removeItem("token");
      await login();
    } else if (answer.status === 503 && tries < 30) {
      await new Promise((go) => setTimeout(go, 1000));
    } else {
      const json = await answer.json();
      if (!answer.ok) throw new Error(json.error);
      return json[0];
    }
  }
}

async function show(file, name) {
  const { text, image, wait } = card(name, file);
  try {
    const start = performance.now();
    const { classes, unknown, note, ms, heatmap } = await send(file, name);
    const all = performance.now() - start;
    if (unknown) add("p", text, "Unknown: like none of the pictures that the model learned. Nearest are:", "small");
    const list = add("ol", text);
    for (const { label, probability } of classes) {
      const line = add("li", list);
      add("span", line, label.replaceAll("_", " "));
      add("span", line, `${(probability * 100).toFixed(1)} %`);
      const bar = add("progress", line);
      bar.value = probability;
      bar.setAttribute("aria-hidden", "true");
    }
    if (note) add("p", text, note, "small");
    if (heatmap) await drawHeat(image, heatmap).catch(() => add("p", text, "This browser does not show the picture.", "small"));
    else if (element("why").checked) add("p", text, "This model does not tell where a class comes from.", "small");
    const here = ms.decode + ms.preprocess + ms.run;
    add("p", text, `${here.toFixed(1)} ms to classify, ${all.toFixed(0)} ms in all`, "muted small");
  } catch (e) {
    const lost = e instanceof TypeError ? "The service does not answer; is it running?" : e.message.replace(`${name}: `, "");
    add("p", text, lost, "error");
  }
  wait.remove();
}

// One after another, in their order.
let queue = Promise.resolve();
function take(files) {
  for (const file of files) queue = queue.then(() => show(file, file.name || "pasted picture"));
}

for (const id of ["file", "photo"]) {
  element(id).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => take([...event.clipboardData.files]));

// Browsers give pages the camera where nobody can listen: on this machine, or by TLS. Elsewhere phones
// still take a photo and hand it over.
let stream;
const canStream = Boolean(navigator.mediaDevices?.getUserMedia);
element("open").hidden = !canStream;
element("take").hidden = canStream;

element("open").addEventListener("click", async () => {
  try {
    const video = { facingMode: "environment", width: { ideal: 1280 } };
    stream = await navigator.mediaDevices.getUserMedia({ video });
    element("video").srcObject = stream;
    await element("video").play();
    element("camera").hidden = false;
    element("start").hidden = true;
  } catch (e) {
    element("open").hidden = true;
    element("take").hidden = false;
    element("about").textContent = `The camera cannot be used: ${e.message}`;
  }
});

function shoot() {
  const video = element("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `camera ${new Date().toLocaleTimeString()}`;
  queue = queue.then(() => new Promise((go) => canvas.toBlob(go, "image/jpeg", 0.9)))
    .then((file) => file && show(file, name));
}

element("shoot").addEventListener("click", shoot);
let timer;
element("again").addEventListener("change", (event) => {
  clearInterval(timer);
  if (event.target.checked) timer = setInterval(shoot, 1000);
});
element("close").addEventListener("click", () => {
  clearInterval(timer);
  element("again").checked = false;
  for (const track of stream.getTracks()) track.stop();
  element("camera").hidden = true;
  element("start").hidden = false;
});

(async () => {
  try {
    const { model, classes } = await (await fetch("/healthz")).json();
    element("about").textContent = `Model ${model}, ${classes.toLocaleString("en")} classes. ` +
      "Pictures go to this service alone, which does not keep them.";
  } catch {
    element("about").textContent = "The service does not answer; is it running?";
    element("about").className = "error";
  }
})();
