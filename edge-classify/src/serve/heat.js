"use strict";
// Viridis at equal distances.
const COLORS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
  [110, 206, 88], [181, 222, 43], [253, 231, 37]];

// Replaces a picture by itself in grey, with the shares of a class over what the model saw: (grey + color) / 2.
async function drawHeat(image, { class: name, width, height, seen, values }) {
  await image.decode();
  const [small, canvas] = ["canvas", "canvas"].map((tag) => document.createElement(tag));
  [small.width, small.height] = [width, height];
  const map = small.getContext("2d").createImageData(width, height);
  const most = Math.max(...values);
  values.forEach((value, i) => {
    const at = most > 0 ? Math.max(value / most, 0) * (COLORS.length - 1) : 0;
    const [from, to] = [COLORS[Math.floor(at)], COLORS[Math.ceil(at)]];
    map.data.set([...from.map((c, k) => c + (to[k] - c) * (at % 1)), 255], i * 4);
  });
  small.getContext("2d").putImageData(map, 0, 0);
  const scale = Math.min(1, 640 / Math.max(image.naturalWidth, image.naturalHeight));
  const [w, h] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(Math.round(side * scale), 1));
  [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  const fill = (mode, color) => {
    context.globalCompositeOperation = mode;
    context.fillStyle = color;
    context.fillRect(0, 0, w, h);
  };
  fill("source-over", "#fff");
  context.drawImage(image, 0, 0, w, h);
  fill("saturation", "#888");
  fill("source-over", "#0008");
  context.globalCompositeOperation = "lighter";
  context.globalAlpha = 0.5;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, seen[0] * w, seen[1] * h, seen[2] * w, seen[3] * h);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Where ${name.replaceAll("_", " ")} comes from`);
  image.replaceWith(canvas);
}
