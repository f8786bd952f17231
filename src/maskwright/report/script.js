// Two comforts; the page reads fine without them.
"use strict";

// 1. Folded parts are printed too.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});

// 2. Pointing at a line chart shows the values there.
const write = (value, percent) =>
  percent ? (100 * value).toFixed(2) + " %" :
  value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential(2) :
  value.toLocaleString("en", { maximumSignificantDigits: 4 });

for (const svg of document.querySelectorAll("svg[data-x]")) {
  const [x0, x1, ...unit] = svg.dataset.x.split(" ");
  const [y0, y1, log] = svg.dataset.y.split(" ").map(Number);
  const toX = (share) => +x0 + share * (x1 - x0);
  const toY = (share) => (log ? y0 * (y1 / y0) ** share : y0 + share * (y1 - y0));
  const lines = [...svg.querySelectorAll("path[data-name]:not(.dot)")].map((path) => ({
    name: path.dataset.name,
    ink: path.getAttribute("class").split(" ").pop(),
    points: [...path.getAttribute("d").matchAll(/[ML]([\d.]+) ([\d.]+)/g)].map((m) => [+m[1], +m[2]]),
  }));
  if (!lines.length) continue;
  const plot = svg.parentElement;
  const ruler = plot.appendChild(document.createElement("div"));
  const card = plot.appendChild(document.createElement("div"));
  ruler.className = "ruler";
  card.className = "readout";
  const hide = () => plot.classList.remove("reading");
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const at = (1000 * (event.clientX - box.left)) / box.width;
    const nearest = lines.map((line) =>
      line.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a)));
    const x = nearest.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a))[0];
    const place = toX(x / 1000);
    const written = "xPercent" in svg.dataset ? write(place, true) : Math.round(place).toLocaleString("en");
    card.replaceChildren(unit.join(" ") + " " + written);
    lines.forEach((line, index) => {
      const row = card.appendChild(document.createElement("div"));
      row.className = line.ink;
      row.append(line.name + " ");
      const value = toY(1 - nearest[index][1] / 1000);
      row.appendChild(document.createElement("b")).append(write(value, "percent" in svg.dataset));
    });
    ruler.style.left = x / 10 + "%";
    card.style.left = x < 500 ? `calc(${x / 10}% + 10px)` : "auto";
    card.style.right = x < 500 ? "auto" : `calc(${100 - x / 10}% + 10px)`;
    plot.classList.add("reading");
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", hide);
}
