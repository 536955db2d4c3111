// What a page does beyond showing itself: light and dark, tables that sort, texts to copy, and curves with zoom and
// hover. Without scripts, the page shows the same, with pictures in place of the curves.
"use strict";
var coterie = (() => {
  const root = document.documentElement, plots = new Set();
  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const colour = name => getComputedStyle(root).getPropertyValue(name).trim();

  // Light and dark.
  const THEMES = {system: "◐", light: "☀", dark: "☾"};
  function addThemeButton() {
    const button = make("button", {id: "theme", type: "button", class: "tool"});
    const show = () => {
      const theme = root.dataset.theme || "system";
      button.textContent = THEMES[theme];
      button.setAttribute("aria-label", `Colours: ${theme}. Change.`);
      button.title = `Colours: ${theme}`;
    };
    button.addEventListener("click", () => {
      const names = Object.keys(THEMES);
      root.dataset.theme = names[(names.indexOf(root.dataset.theme || "system") + 1) % names.length];
      try { localStorage.setItem("coterie-theme", root.dataset.theme); } catch { /* it is not remembered */ }
      show();
      redraw();
    });
    show();
    (document.querySelector("main") || document.body).before(button);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  // Tables that sort: by a cell's data-key, as numbers where both are numbers; cells without a value come last.
  function sortTable(table) {
    const body = table.tBodies[0];
    table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
      const head = button.parentElement, down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const last = key => key === "" || key === "-";
      const compare = (a, b) => last(a) - last(b) || (down ? -1 : 1) *
        (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b);
      [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach(row => body.append(row));
    }));
  }

  // Texts to copy.
  function addCopyButton(box) {
    const text = box.querySelector("pre"), button = make("button", {type: "button", class: "tool"}, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    box.append(button);
  }

  // Curves.
  const UNITS = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
  const number = value => value == null ? "–" : Number(value.toPrecision(4)).toString();
  function bytes(value, digits = 4) {
    const [size, unit] = UNITS.find(([size]) => Math.abs(value) >= size) || [1, "B"];
    return `${Number((value / size).toPrecision(digits))} ${unit}`;
  }
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8];
  function logSplits(low, high) {  // round numbers on a logarithmic axis, about four to eight
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), decades = last - first;
    const factors = decades <= 1 ? [1, 2, 3, 5] : decades <= 4 ? [1, 3] : [1];
    const stride = decades > 7 ? Math.ceil(decades / 7) : 1;
    const all = [];
    for (let k = first; k <= last; k += stride) for (const factor of factors) all.push(Number(`${factor}e${k}`));
    const found = all.filter(value => value >= low && value <= high);
    return found.length > 1 ? found : [low, Math.sqrt(low * high), high].map(value => Number(value.toPrecision(3)));
  }
  const SVG = "http://www.w3.org/2000/svg";
  function swatch(line) {
    const picture = document.createElementNS(SVG, "svg"), stroke = document.createElementNS(SVG, "line");
    for (const [name, value] of Object.entries({class: "swatch", viewBox: "0 0 26 8", "aria-hidden": "true"}))
      picture.setAttribute(name, value);
    const look = {"stroke-width": 2.5, "stroke-dasharray": line.dash.join(" ") || "none"};
    for (const [name, value] of Object.entries({x1: 0, x2: 26, y1: 4, y2: 4, ...look}))
      stroke.setAttribute(name, value);
    stroke.style.stroke = `var(${line.colour})`;
    picture.append(stroke);
    return picture;
  }

  class Plot {
    constructor(figure) {
      this.figure = figure;
      this.data = JSON.parse(figure.querySelector("script").textContent);
      this.hidden = new Set();
      this.range = null;  // of x, where the reader has zoomed
      const {lines} = this.data;
      const tables = lines.map(line => line.low ? [line.x, line.y, line.low, line.high] : [line.x, line.y]);
      this.columns = uPlot.join(tables);
      this.areas = [];  // the column of each line; those of its band follow
      let column = 1;
      for (const line of lines) { this.areas.push(column); column += line.low ? 3 : 1; }
      const [first, last] = [this.columns[0][0], this.columns[0].at(-1)];
      const margin = first === last ? 0.5 : 0;
      this.ends = [first - margin, last + margin];
      this.live = make("div", {class: "live"});
      this.bar = make("div", {class: "bar"});
      this.legend = make("div", {class: "keys"});
      if (this.data.legend) lines.forEach((line, k) => this.legend.append(this.key(line, k)));
      this.bar.append(this.legend);
      const tools = [["−", "Zoom out", () => this.zoom(2)], ["+", "Zoom in", () => this.zoom(1 / 2)],
        ["↺", "Show all", () => this.show(null)]];
      for (const [sign, name, act] of tools) {
        const button = make("button", {type: "button", class: "tool", title: name,
          "aria-label": `${name}: ${this.data.name}`}, sign);
        button.addEventListener("click", act);
        this.bar.append(button);
      }
      this.area = make("div", {class: "area", tabindex: 0, role: "group", "aria-label":
        `${this.data.name}. Arrow keys move along the curves, plus and minus zoom, Escape shows all.`});
      this.hover = make("div", {class: "hover", "aria-live": "polite"});
      this.hover.hidden = true;
      this.area.addEventListener("keydown", event => this.press(event));
      this.area.addEventListener("blur", () => { this.hover.hidden = true; });
      this.live.append(this.bar, this.area, this.hover);
      figure.append(this.live);
      figure.classList.add("drawn");
      this.draw();
      this.watcher = new ResizeObserver(() => this.resize());
      this.watcher.observe(figure);
    }
    key(line, k) {
      const button = make("button", {type: "button", "aria-pressed": "true", title: "Hide or show"},
        swatch(line), line.label);
      button.addEventListener("click", () => this.toggle(k));
      return button;
    }
    toggle(k, shown = this.hidden.has(k)) {
      if (shown) this.hidden.delete(k); else this.hidden.add(k);
      this.legend.children[k]?.setAttribute("aria-pressed", shown);
      this.shared?.[this.data.lines[k].key]?.setAttribute("aria-pressed", shown);
      const count = this.data.lines[k].low ? 3 : 1;
      for (let each = 0; each < count; each++) this.plot.setSeries(this.areas[k] + each, {show: shown});
    }
    draw() {
      this.plot?.destroy();
      const [series, bands] = this.series();
      this.plot = new uPlot({
        width: Math.max(this.figure.clientWidth, 200),
        height: 270,
        series,
        bands,
        legend: {show: false},
        padding: [8, this.data.x_bytes ? 26 : 14, 0, 0],
        scales: this.scales(),
        axes: this.axes(),
        cursor: {
          drag: {x: true, y: false, setScale: false},
          y: false,
          points: {size: 8},
          dataIdx: (u, k, at) => this.nearest(k, at),
        },
        hooks: {setCursor: [u => this.tell(u)], setSelect: [u => this.select(u)]},
      }, this.columns, this.area);
      this.plot.over.addEventListener("dblclick", () => this.show(null));
      this.plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    }
    series() {  // a line, and the ends of its band where it has one
      const series = [{}], bands = [];
      this.data.lines.forEach((line, k) => {
        const stroke = colour(line.colour), show = !this.hidden.has(k);
        const points = {show: this.data.points && !line.plain, size: 7, fill: stroke};
        series.push({label: line.label, stroke, width: line.width || 2, dash: line.dash, spanGaps: true, show, points});
        if (!line.low) return;
        const end = {stroke: "transparent", width: 0, spanGaps: true, show, points: {show: false}};
        series.push(end, {...end});
        bands.push({series: [series.length - 1, series.length - 2], fill: stroke + "33"});
      });
      return [series, bands];
    }
    scales() {
      const {log_x, log_y} = this.data;
      const range = (u, low, high) => {
        if (low == null) return log_y ? [1, 10] : [0, 1];
        if (log_y) return [low / 1.15, high * 1.15];
        const margin = low === high ? (Math.abs(low) || 1) / 10 : (high - low) / 20;
        return [low - margin, high + margin];
      };
      const ends = () => this.range || this.ends;
      return {x: {time: false, distr: log_x ? 3 : 1, range: ends}, y: {distr: log_y ? 3 : 1, range}};
    }
    axes() {
      const {x_label, y_label, x_bytes, log_x, log_y} = this.data;
      const grid = {stroke: colour("--line"), width: 1}, font = "12px system-ui, sans-serif";
      const text = {stroke: colour("--ink"), font, labelFont: font, labelSize: 18, gap: 4};
      const look = {...text, grid, ticks: {...grid, size: 4}};
      const linear = {values: (u, splits) => splits.map(number)};
      const log = {
        splits: (u, axis, low, high) => logSplits(low, high),
        filter: (u, splits) => splits,
        values: (u, splits) => splits.map(value => Number(value.toPrecision(3)).toString()),
      };
      const whole = this.columns[0].every(Number.isInteger) ? {incrs: WHOLE} : {};
      const x = x_bytes ? {values: (u, splits) => splits.map(value => bytes(value)), space: 70} : log_x ? log : whole;
      const longest = values => Math.max(0, ...(values || []).map(value => String(value).length));
      const size = (u, values) => Math.max(34, 12 + 7 * longest(values));
      return [{...look, label: x_label, size: 30, ...x}, {...look, label: y_label, size, ...(log_y ? log : linear)}];
    }
    select(u) {  // the reader has dragged over a part
      if (u.select.width < 4) return;
      const ends = [u.select.left, u.select.left + u.select.width].map(place => u.posToVal(place, "x"));
      u.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
      this.show(ends);
    }
    nearest(k, at) {  // lines may have values at different places: the nearest place where this one has
      const values = this.columns[k], xs = this.columns[0];
      if (!values || k === 0 || values[at] != null) return at;
      let left = at, right = at;
      while (left >= 0 && values[left] == null) left--;
      while (right < values.length && values[right] == null) right++;
      if (left < 0) return right < values.length ? right : at;
      if (right >= values.length) return left;
      return xs[at] - xs[left] <= xs[right] - xs[at] ? left : right;
    }
    tell(u) {  // what the curves say at the cursor
      const {left, top, idx} = u.cursor;
      if (left == null || left < 0 || idx == null) { this.hover.hidden = true; return; }
      const rows = this.data.lines.map((line, k) => {
        const column = this.areas[k], at = this.nearest(column, idx), y = this.columns[column][at];
        const band = line.low ? [1, 2].map(each => this.columns[column + each][at]) : null;
        return {line, y, band, far: y == null ? Infinity : Math.abs(u.valToPos(y, "y") - (top < 0 ? 0 : top))};
      }).filter((row, k) => row.y != null && !this.hidden.has(k));
      const near = new Set([...rows].sort((a, b) => a.far - b.far).slice(0, 8));
      const x = this.columns[0][idx];
      const head = this.data.x_bytes ? `${bytes(x)} ${this.data.x_label}` : `${this.data.x_label} ${number6(x)}`;
      const describe = ({line, y, band}) => {
        const wide = band && band[0] != null && band[0] !== band[1];
        const text = number(y) + (wide ? ` (${band.map(number).join(" to ")})` : "");
        return make("div", {}, swatch(line), line.label || this.data.y_label, make("b", {}, text));
      };
      this.hover.replaceChildren(head, ...rows.filter(row => near.has(row)).map(describe));
      if (rows.length > 8) this.hover.append(`and ${rows.length - 8} more`);
      this.hover.hidden = false;
      const box = u.over, place = this.area.offsetLeft + box.offsetLeft + left;
      const width = this.hover.offsetWidth, room = this.live.clientWidth;
      this.hover.style.left = `${place + 14 + width < room ? place + 14 : Math.max(0, place - 14 - width)}px`;
      this.hover.style.top = `${this.area.offsetTop + 12}px`;
    }
    zoom(factor) {
      const [low, high] = this.range || this.ends, log = this.data.log_x;
      const [a, b] = log ? [Math.log(low), Math.log(high)] : [low, high];
      const {left, idx} = this.plot.cursor, on = left >= 0 && idx != null ? this.columns[0][idx] : null;
      const middle = on == null || on < low || on > high ? (a + b) / 2 : log ? Math.log(on) : on;
      const ends = [middle - (middle - a) * factor, middle + (b - middle) * factor];
      this.show(log ? ends.map(Math.exp) : ends);
    }
    show(range) {  // between the ends of x; null for all
      if (range) {
        range = [Math.max(range[0], this.ends[0]), Math.min(range[1], this.ends[1])];
        if (range[0] <= this.ends[0] && range[1] >= this.ends[1] || !(range[0] < range[1])) range = null;
      }
      this.range = range;
      const [min, max] = range || this.ends;
      this.plot.setScale("x", {min, max});
    }
    press(event) {
      const steps = {ArrowLeft: -1, ArrowRight: 1};
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) this.step(steps[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(1 / 2);
      else if (event.key === "-") this.zoom(2);
      else if (event.key === "Escape" || event.key === "0") this.show(null);
      else return;
      event.preventDefault();
    }
    step(by) {
      const xs = this.columns[0], [low, high] = this.range || this.ends, now = this.plot.cursor;
      let at = now.left >= 0 && now.idx != null ? now.idx + by : by > 0 ? xs.findIndex(x => x >= low) : xs.length - 1;
      at = Math.min(Math.max(at, 0), xs.length - 1);
      if (xs[at] < low || xs[at] > high) return;
      this.plot.setCursor({left: this.plot.valToPos(xs[at], "x"), top: 0});
    }
    resize() {
      const width = this.figure.clientWidth;
      if (width > 0 && width !== this.plot.width) this.plot.setSize({width, height: this.plot.height});
    }
    end() {
      this.watcher.disconnect();
      this.plot.destroy();
    }
  }
  const number6 = value => Number(value.toPrecision(6)).toString();

  // One legend above several charts.
  function shareLegend(keys) {
    const figures = [...keys.closest("section")?.querySelectorAll("figure.plot") || []];
    const shown = [...plots].filter(plot => figures.includes(plot.figure));
    const buttons = [...keys.children].map((key, k) => {
      const button = make("button", {type: "button", "aria-pressed": "true", title: "Hide or show"}, ...key.childNodes);
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", pressed);
        for (const plot of shown)
          plot.data.lines.forEach((line, place) => { if (line.key === k) plot.toggle(place, pressed); });
      });
      key.replaceWith(button);
      return button;
    });
    for (const plot of shown) plot.shared = buttons;
  }
  function redraw() {
    for (const plot of plots) plot.draw();
  }
  function enhance(part) {
    part.querySelectorAll("table.sortable").forEach(sortTable);
    part.querySelectorAll(".copy").forEach(addCopyButton);
    if (typeof uPlot === "undefined") return;
    for (const figure of part.querySelectorAll("figure.plot")) plots.add(new Plot(figure));
    part.querySelectorAll(".keys.shared").forEach(shareLegend);
  }
  // Where the reader stands on a page that is about to be replaced, and the same on the new one.
  function remember() {
    const found = [...plots].map(plot => [plot.data.name, plot.range, plot.hidden]);
    for (const plot of plots) plot.end();
    plots.clear();
    return found;
  }
  function restore(places) {
    for (const plot of plots) {
      const [, range, hidden] = places.find(([name]) => name === plot.data.name) || [];
      if (range) plot.show(range);
      for (const k of hidden || []) if (k < plot.data.lines.length) plot.toggle(k, false);
    }
  }
  // For tests: the ends of x on a chart, and how many lines are hidden.
  const find = figure => [...plots].find(plot => plot.figure === figure);
  const ends = figure => find(figure).range || find(figure).ends;
  const hidden = () => [...plots].reduce((sum, plot) => sum + plot.hidden.size, 0);
  addThemeButton();
  return {enhance, remember, restore, ends, hidden};
})();
