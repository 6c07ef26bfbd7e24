// First script of a copy of report.html: operates the page as a user would, and stores the results in an attribute of the page,
// which `chromium --dump-dom` prints.
"use strict";
(() => {
  const errors = [];
  addEventListener("error", (event) => errors.push(String(event.message)));
  addEventListener("securitypolicyviolation", (event) => errors.push(`asks for ${event.blockedURI}`));
  // The probe triggers every frame: a headless browser may never request one.
  const asked = [], frame = window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => asked.push(draw);
  const draw = () => asked.splice(0).forEach((draw) => draw());
  const bytes = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);

  // Fraction of the canvas covered by the surface, mean position and number of shades of these pixels.
  function seen(canvas) {
    const gl = canvas.getContext("webgl2");
    const [wide, high] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
    const pixels = new Uint8Array(4 * wide * high);
    gl.readPixels(0, 0, wide, high, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    let [covered, x, y] = [0, 0, 0];
    const shades = new Set();
    for (let i = 0; i < wide * high; i++) if (pixels[4 * i + 3] > 0) {
      covered++;
      x += i % wide / wide;
      y += Math.floor(i / wide) / high;
      shades.add(pixels[4 * i + 2]);
    }
    let hash = 0;
    for (const value of pixels) hash = (hash * 31 + value) | 0;
    return { share: covered / (wide * high), centre: [x / covered, y / covered], shades: shades.size, hash };
  }

  // Content of the canvas after an action, read before it is displayed.
  function after(canvas, action) {
    action();
    draw();
    return seen(canvas);
  }

  addEventListener("load", () => {
    const figure = document.getElementById("surface");
    const [canvas, slider] = [figure.querySelector("canvas"), figure.querySelector("input")];
    draw();
    const press = (key) => () => canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
    const triangles = Number(figure.dataset.triangles);
    const first = after(canvas, press("ArrowLeft"));
    const turned = after(canvas, press("ArrowUp"));
    const near = after(canvas, press("+"));
    const higher = after(canvas, () => {
      slider.value = Math.min(Number(slider.value) * 1.5, 250);
      slider.dispatchEvent(new Event("input"));
    });
    const images = [...document.images];
    const text = getComputedStyle(document.body);
    document.documentElement.dataset.probe = JSON.stringify({
      errors,
      triangles,
      triangles_higher: Number(figure.dataset.triangles),
      first, turned, near, higher,
      images: images.length,
      images_shown: images.filter((image) => image.complete && image.naturalWidth > 100).length,
      charts: [...document.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().height > 100).length,
      wide: document.documentElement.scrollWidth,
      window: innerWidth,
      paper: bytes(text.backgroundColor),
      ink: bytes(text.color),
    });
    // Restore normal operation.
    window.requestAnimationFrame = frame;
    window.dispatchEvent(new Event("resize"));
  });
})();
