// Surface of the map by surface nets (Gibson, MICCAI 1998), drawn with WebGL. Rotate by mouse, finger or arrow keys; zoom by
// wheel, pinch or + and -; the slider sets the level.
"use strict";
(() => {
  const figure = document.getElementById("surface");
  const canvas = figure.querySelector("canvas");
  const slider = figure.querySelector("input");
  const message = figure.querySelector("output");
  const size = Number(figure.dataset.size);
  const most = Number(figure.dataset.most);
  const text = atob(figure.querySelector("script").textContent);
  const levels = new Uint8Array(size ** 3);
  for (let i = 0; i < levels.length; i++) levels[i] = text.charCodeAt(i);
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) {
    message.textContent = "This browser does not support WebGL 2: the surface cannot be shown.";
    slider.disabled = true;
    return;
  }

  const at = (x, y, z) => levels[(z * size + y) * size + x];
  const clamp = (v) => Math.min(Math.max(v, 0), size - 1);
  // Density by trilinear interpolation.
  const interpolate = (x, y, z) => {
    const [i, j, k] = [x, y, z].map((v) => Math.min(Math.floor(clamp(v)), size - 2));
    const [u, v, w] = [clamp(x) - i, clamp(y) - j, clamp(z) - k];
    const line = (b, c) => at(i, j + b, k + c) * (1 - u) + at(i + 1, j + b, k + c) * u;
    return (line(0, 0) * (1 - v) + line(1, 0) * v) * (1 - w) + (line(0, 1) * (1 - v) + line(1, 1) * v) * w;
  };

  // Points, normals and triangles of the isosurface at a level.
  function mesh(level) {
    const points = [], normals = [], triangles = [];
    const number = new Int32Array(size ** 3).fill(-1);
    const cell = (x, y, z) => (z * size + y) * size + x;
    for (let z = 0; z < size - 1; z++) for (let y = 0; y < size - 1; y++) for (let x = 0; x < size - 1; x++) {
      // A cell with corners on both sides has one point: the mean of the crossings on its edges.
      let corners = 0;
      for (let c = 0; c < 8; c++) if (at(x + (c & 1), y + (c >> 1 & 1), z + (c >> 2)) > level) corners |= 1 << c;
      if (corners === 0 || corners === 255) continue;
      let [sx, sy, sz, n] = [0, 0, 0, 0];
      for (let c = 0; c < 8; c++) for (let axis = 0; axis < 3; axis++) {
        const d = c | 1 << axis;
        if (d === c || (corners >> c & 1) === (corners >> d & 1)) continue;
        const a = at(x + (c & 1), y + (c >> 1 & 1), z + (c >> 2));
        const b = at(x + (d & 1), y + (d >> 1 & 1), z + (d >> 2));
        const t = (level - a) / (b - a);
        sx += (c & 1) + (axis === 0 ? t : 0);
        sy += (c >> 1 & 1) + (axis === 1 ? t : 0);
        sz += (c >> 2) + (axis === 2 ? t : 0);
        n++;
      }
      const [px, py, pz] = [x + sx / n, y + sy / n, z + sz / n];
      const g = [
        interpolate(px - 1, py, pz) - interpolate(px + 1, py, pz),
        interpolate(px, py - 1, pz) - interpolate(px, py + 1, pz),
        interpolate(px, py, pz - 1) - interpolate(px, py, pz + 1),
      ];
      const length = Math.hypot(...g) || 1;
      number[cell(x, y, z)] = points.length / 3;
      points.push(px, py, pz);
      normals.push(g[0] / length, g[1] / length, g[2] / length);
    }
    // Each crossed edge gives a quad between the points of its four cells.
    const quad = (a, b, c, d) => {
      if (Math.min(a, b, c, d) >= 0) triangles.push(a, b, c, a, c, d);
    };
    for (let z = 1; z < size - 1; z++) for (let y = 1; y < size - 1; y++) for (let x = 1; x < size - 1; x++) {
      const here = at(x, y, z) > level;
      if (here !== at(x + 1, y, z) > level)
        quad(number[cell(x, y - 1, z - 1)], number[cell(x, y, z - 1)], number[cell(x, y, z)], number[cell(x, y - 1, z)]);
      if (here !== at(x, y + 1, z) > level)
        quad(number[cell(x - 1, y, z - 1)], number[cell(x - 1, y, z)], number[cell(x, y, z)], number[cell(x, y, z - 1)]);
      if (here !== at(x, y, z + 1) > level)
        quad(number[cell(x - 1, y - 1, z)], number[cell(x, y - 1, z)], number[cell(x, y, z)], number[cell(x - 1, y, z)]);
    }
    return { points: new Float32Array(points), normals: new Float32Array(normals), triangles: new Uint32Array(triangles) };
  }

  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, "#version 300 es\nprecision highp float;\n" + source);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    in vec3 point, normal; uniform mat3 turn; uniform float half_edge, scale, aspect; out vec3 n; out float depth;
    void main() {
      vec3 p = turn * (point - half_edge) / half_edge;
      n = turn * normal;
      depth = p.z;
      gl_Position = vec4(scale * p.x / max(aspect, 1.0), scale * p.y * min(aspect, 1.0), -p.z * 0.25, 1.0 - 0.22 * p.z);
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    in vec3 n; in float depth; uniform vec3 colour; out vec4 pixel;
    void main() {
      vec3 m = normalize(n);
      vec3 light = normalize(vec3(-0.35, 0.5, 0.8));
      float diffuse = max(dot(m, light), 0.0), rim = max(dot(m, vec3(0.0, 0.0, 1.0)), 0.0);
      float gloss = pow(max(dot(reflect(-light, m), vec3(0.0, 0.0, 1.0)), 0.0), 24.0);
      pixel = vec4(colour * (0.22 + 0.58 * diffuse + 0.25 * rim) * (0.86 + 0.2 * depth) + 0.16 * gloss, 1.0);
    }`));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const buffers = { point: gl.createBuffer(), normal: gl.createBuffer(), triangles: gl.createBuffer() };
  let count = 0;

  function remesh() {
    const { points, normals, triangles } = mesh(Number(slider.value) + 0.5);
    for (const [name, data] of [["point", points], ["normal", normals]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.triangles);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.DYNAMIC_DRAW);
    count = triangles.length;
    figure.dataset.triangles = count / 3;
    message.textContent = `density ${(Number(slider.value) / 255 * most).toPrecision(3)}`;
  }

  // Rows of the rotation matrix; x to the right, y up, z towards the viewer.
  let turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  let scale = 1.25;
  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
  const rotate = (right, up) => {
    const [cx, sx, cy, sy] = [Math.cos(up), Math.sin(up), Math.cos(right), Math.sin(right)];
    turn = times(times([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]), turn);
    requestDraw();
  };
  const zoom = (factor) => { scale = Math.min(Math.max(scale * factor, 0.3), 12); requestDraw(); };

  let drawRequested = false;
  const requestDraw = () => { if (!drawRequested) { drawRequested = true; requestAnimationFrame(draw); } };
  function draw() {
    drawRequested = false;
    const [wide, high] = [canvas.clientWidth, canvas.clientHeight].map((v) => Math.max(Math.round(v * devicePixelRatio), 1));
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    gl.viewport(0, 0, wide, high);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const columns = [0, 1, 2].flatMap((k) => turn.map((row) => row[k]));
    gl.uniformMatrix3fv(uniform("turn"), false, columns);
    gl.uniform1f(uniform("half_edge"), (size - 1) / 2);
    gl.uniform1f(uniform("scale"), scale * 0.7);
    gl.uniform1f(uniform("aspect"), wide / high);
    const colour = getComputedStyle(figure).getPropertyValue("--curve-0").trim();
    gl.uniform3fv(uniform("colour"), [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16) / 255));
    gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_INT, 0);
    figure.dataset.drawn = "true";
  }

  // Mouse or one finger: rotate; two fingers: zoom.
  const pointers = new Map();
  const distance = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); pointers.set(e.pointerId, { x: e.clientX, y: e.clientY }); });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => pointers.delete(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    const before = pointers.get(e.pointerId);
    if (!before) return;
    const was = pointers.size === 2 ? distance() : 0;
    pointers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (pointers.size === 2) zoom(distance() / Math.max(was, 1));
    else rotate((e.clientX - before.x) * 0.01, (e.clientY - before.y) * 0.01);
  });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * 0.001)); }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = 0.1;
    const keys = { ArrowLeft: () => rotate(-step, 0), ArrowRight: () => rotate(step, 0), ArrowUp: () => rotate(0, -step),
      ArrowDown: () => rotate(0, step), "+": () => zoom(1.1), "-": () => zoom(1 / 1.1) };
    if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
  });
  slider.addEventListener("input", () => { remesh(); requestDraw(); });
  new ResizeObserver(requestDraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", requestDraw);
  remesh();
  rotate(0.5, 0.35);
})();
