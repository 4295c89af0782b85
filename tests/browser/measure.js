// What a person would see: sizes, contrast of every text with what lies behind it, headings, scroll regions.
(() => {
  const parse = (text) => {
    const parts = (text.match(/[\d.]+/g) || []).map(Number);
    if (text.startsWith("color(srgb")) return [parts[0] * 255, parts[1] * 255, parts[2] * 255, parts[3] ?? 1];
    return [parts[0], parts[1], parts[2], parts[3] ?? 1];
  };
  const over = (top, bottom) => top.slice(0, 3).map((value, i) => value * top[3] + bottom[i] * (1 - top[3]));
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const own = (element) => {
    const style = getComputedStyle(element);
    if (!(element instanceof SVGElement)) return parse(style.backgroundColor);
    if (style.fill === "none" || ["text", "svg", "g"].includes(element.tagName)) return [0, 0, 0, 0];
    const colour = parse(style.fill);
    colour[3] *= Number(style.opacity) * Number(style.fillOpacity);
    return colour;
  };
  const behind = (element, x, y) => {
    const layers = element instanceof SVGElement
      ? document.elementsFromPoint(x, y)
      : (() => { const all = []; for (let e = element; e; e = e.parentElement) all.push(e); return all; })();
    return layers.map(own).filter((c) => c[3] > 0).reverse().reduce((bottom, top) => over(top, bottom), [255, 255, 255]);
  };
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0, worst = { ratio: 99 };
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || ["STYLE", "title"].includes(element.tagName) || element.closest(".skip")) continue;
    element.scrollIntoView({ block: "center", inline: "center" });
    const box = element.getBoundingClientRect();
    if (!box.width) continue;
    const style = getComputedStyle(element);
    const back = behind(element, box.x + box.width / 2, box.y + box.height / 2);
    const colour = parse(element instanceof SVGElement ? style.fill : style.color);
    const found = ratio(over(colour, back), back);
    texts += 1;
    if (found < worst.ratio) worst = { ratio: found, text: node.data.trim().slice(0, 60), tag: element.tagName };
  }
  window.scrollTo(0, 0);
  const seen = (element) => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const narrow = document.documentElement.clientWidth;
  const outside = [...document.querySelectorAll("body *")].filter((element) => {
    if (element.closest(".scroll, svg, .skip")) return false;
    const box = element.getBoundingClientRect();
    return box.right > narrow + 1 || box.left < -1;
  });
  return {
    width: narrow,
    scrollWidth: document.documentElement.scrollWidth,
    outside: outside.slice(0, 5).map((element) => element.outerHTML.slice(0, 120)),
    texts,
    worst,
    headings: [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((h) => h.tagName + " " + h.textContent.trim()),
    hidden: [...document.querySelectorAll("h1, h2, h3, h4")].filter((h) => !seen(h)).length,
    tables: [...document.querySelectorAll("table")].map((table) => {
      const region = table.closest(".scroll");
      return {
        caption: table.caption.textContent,
        captionFits: table.caption.firstElementChild.getBoundingClientRect().width <= region.clientWidth,
        named: document.getElementById(region.getAttribute("aria-labelledby")) === table.caption,
        focusable: region.tabIndex === 0,
        font: parseFloat(getComputedStyle(table).fontSize),
        cells: [...table.rows].every((row) => row.cells.length === table.rows[0].cells.length),
      };
    }),
    plots: [...document.querySelectorAll("svg")].map((svg) => {
      const box = svg.getBoundingClientRect();
      const text = svg.querySelector("text").getBoundingClientRect();
      return { width: box.width, height: box.height, text: text.height, name: svg.querySelector("title").textContent };
    }),
    marks: [...document.querySelectorAll("del, ins")].map((mark) => {
      const style = getComputedStyle(mark);
      return { weight: Number(style.fontWeight), line: style.textDecorationLine };
    }),
    paper: getComputedStyle(document.body).backgroundColor,
    loaded: performance.getEntriesByType("resource").length,
  };
})()
