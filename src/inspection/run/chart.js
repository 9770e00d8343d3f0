// Charts from the numbers in each figure.chart: drag across one to zoom, double-click to see all again, click a name to
// hide its line.
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#1f6fb4", "#d1641a", "#2c8a3d", "#a3328f", "#7a5a1e", "#0a8f97", "#b3261e", "#555f6b"];
const WIDTH = 540, HEIGHT = 260, LEFT = 62, RIGHT = 12, TOP = 10, BOTTOM = 34;

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// About five round numbers from low to high, each [value, text] with the digits that tell it from its neighbours.
function ticks(low, high) {
  const rough = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  const digits = Math.min(20, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  for (let count = Math.ceil(low / step); count * step <= high + step * 1e-9; count++) {
    found.push([count * step, Number((count * step).toFixed(digits)).toString()]);
  }
  return found;
}

const shown = (value) => Number(value.toPrecision(4)).toString();

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const room = (high - low) * 0.04 || Math.abs(high) * 0.04 || 1;
  return [low - room, high + room];
}

function draw(figure) {
  const { data, hidden } = figure.state;
  const lines = data.lines.filter((line) => !hidden.has(line.name));
  const all = data.lines.flatMap((line) => line.points.map((point) => point[0]));
  const [x0, x1] = figure.state.zoom || extent(all);
  const inside = lines.flatMap((line) => line.points.filter(([x]) => x >= x0 && x <= x1).map(([, y]) => y));
  const [y0, y1] = inside.length ? extent(inside) : [0, 1];
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  figure.state.toX = (pixel) => x0 + ((pixel - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
  figure.querySelector("svg")?.remove();
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT }, figure);
  const clip = `clip${[...document.querySelectorAll("figure.chart")].indexOf(figure)}`;
  element("rect", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM },
    element("clipPath", { id: clip }, svg));
  for (const [value, text] of ticks(y0, y1)) {
    element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value), stroke: "#e3e7eb" }, svg);
    element("text", { x: LEFT - 6, y: py(value) + 4, "text-anchor": "end" }, svg, text);
  }
  for (const [value, text] of ticks(x0, x1)) {
    element("text", { x: px(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, svg, text);
  }
  element("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, svg, data.x);
  const plot = element("g", { "clip-path": `url(#${clip})` }, svg);
  for (const line of [...lines].sort((a, b) => b.faint - a.faint)) {
    const style = { stroke: COLOURS[line.colour % COLOURS.length], "stroke-width": line.faint ? 1 : 2,
      opacity: line.faint ? 0.35 : 1 };
    const points = line.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ");
    element("polyline", { points, fill: "none", ...style }, plot);
    if (line.faint || line.points.length > 60) continue;
    for (const [x, y] of line.points) {
      const mark = element("circle", { cx: px(x), cy: py(y), r: 3, fill: style.stroke }, plot);
      element("title", {}, mark, `${line.name ? `${line.name}: ` : ""}${shown(y)} at ${data.x} ${shown(x)}`);
    }
  }
  zoomable(figure, svg);
}

function zoomable(figure, svg) {
  let from = null, box = null;
  const at = (event) => { // in the drawing's units; a narrow window shows it smaller
    const shape = svg.getBoundingClientRect();
    return Math.min(WIDTH - RIGHT, Math.max(LEFT, ((event.clientX - shape.left) * WIDTH) / shape.width));
  };
  const forget = () => { from = null; box?.remove(); };
  svg.addEventListener("pointerdown", (event) => {
    from = at(event);
    box = element("rect", { class: "zoom", x: from, y: TOP, width: 0, height: HEIGHT - TOP - BOTTOM }, svg);
  });
  svg.addEventListener("pointermove", (event) => {
    if (from === null) return;
    box.setAttribute("x", Math.min(from, at(event)));
    box.setAttribute("width", Math.abs(at(event) - from));
  });
  svg.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const ends = [from, at(event)].sort((a, b) => a - b).map(figure.state.toX);
    const moved = Math.abs(at(event) - from) > 5;
    forget();
    if (moved) { figure.state.zoom = ends; draw(figure); }
  });
  svg.addEventListener("pointercancel", forget); // the finger scrolls the page
  svg.addEventListener("dblclick", () => { figure.state.zoom = null; draw(figure); });
}

function legend(figure) {
  if (figure.state.data.lines.length < 2) return;
  const names = document.createElement("div");
  names.className = "legend";
  for (const line of figure.state.data.lines) {
    const name = document.createElement("button");
    name.textContent = line.name;
    name.style.setProperty("--colour", COLOURS[line.colour % COLOURS.length]);
    name.style.opacity = line.faint ? 0.6 : 1;
    name.addEventListener("click", () => {
      if (!figure.state.hidden.delete(line.name)) figure.state.hidden.add(line.name);
      name.classList.toggle("off");
      draw(figure);
    });
    names.append(name);
  }
  figure.append(names);
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const numbers = figure.querySelector("script");
  if (!numbers) continue; // a drawing that is there already
  figure.state = { data: JSON.parse(numbers.textContent), hidden: new Set(), zoom: null };
  legend(figure);
  draw(figure);
}
