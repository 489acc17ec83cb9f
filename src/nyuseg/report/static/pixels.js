// A frame's arrays: read from its script, and painted onto a canvas.
"use strict";

const VOID = 255;
const KEPT = 12;
const waiting = new Map();
const frames = new Map();

// Each frames/<file>.js calls this.
function frameLoaded(entry) {
  const asked = waiting.get(entry.file);
  waiting.delete(entry.file);
  if (asked) asked.resolve(entry);
}

// A promise of the frame of a file: {size: [H, W], truth, mask0, classes0, percent0, depth, ...},
// each array as {shape, values}.
function loadFrame(file) {
  if (!frames.has(file)) {
    const script = document.createElement("script");
    const entry = new Promise((resolve, reject) => {
      waiting.set(file, { resolve });
      script.onerror = () => {
        waiting.delete(file);
        frames.delete(file);
        reject(new Error(`frames/${file}.js cannot be read`));
      };
    });
    script.src = `frames/${encodeURIComponent(file)}.js`;
    document.head.append(script);
    frames.set(file, entry.then(unpack).finally(() => script.remove()));
    if (frames.size > KEPT) frames.delete(frames.keys().next().value);
  }
  return frames.get(file);
}

async function unpack(entry) {
  const bytes = Uint8Array.from(atob(entry.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const frame = { size: entry.size };
  let at = 0;
  for (const [name, type, shape] of entry.layout) {
    const count = shape.reduce((product, side) => product * side, 1);
    const width = shape[shape.length - 1];
    if (type === "uint16") {
      frame[name] = { shape, values: undelta(raw.subarray(at, at + 2 * count), count, width) };
      at += 2 * count;
    } else {
      frame[name] = { shape, values: raw.subarray(at, at + count) };
      at += count;
    }
  }
  return frame;
}

// Low bytes, then high bytes, of the differences along each row.
function undelta(bytes, count, width) {
  const values = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const before = i % width ? values[i - 1] : 0;
    values[i] = before + bytes[i] + 256 * bytes[count + i];
  }
  return values;
}

// Which cell of a grid [.., h, w] a pixel of the frame lies in.
function cellOf(frame, shape, y, x) {
  const [h, w] = shape.slice(-2);
  return Math.floor((y * h) / frame.size[0]) * w + Math.floor((x * w) / frame.size[1]);
}

// Viridis (Smith and van der Walt 2015), at nine places: readable in grey and by the colour-blind.
const RAMP = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

function ramp(part) {
  const place = Math.min(Math.max(part, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, k) => value + (place - low) * (RAMP[low + 1][k] - value));
}

const NEAR = 500, FAR = 8000;
const ERROR_COLOUR = [213, 0, 110], RIGHT_COLOUR = [30, 60, 90];

const errors = {
  name: "Errors",
  needs: (frame) => frame.truth,
  painter: (frame, of) => {
    const truth = frame.truth.values, mask = frame[`mask${of}`].values;
    return (i) => {
      if (truth[i] === VOID) return [0, 0, 0, 255];
      return truth[i] === mask[i] ? [...RIGHT_COLOUR, 90] : [...ERROR_COLOUR, 255];
    };
  },
};
// Without a truth: how many of the networks see another class than their mean.
const disagreement = {
  name: "Disagreement",
  needs: (frame) => frame.differing,
  painter: (frame) => {
    const { shape, values } = frame.differing;
    const colours = Array.from({ length: REPORT.networks + 1 }, (_, count) => (
      count ? [...ERROR_COLOUR, (255 * count) / REPORT.networks] : [...RIGHT_COLOUR, 90]
    ));
    return (i, y, x) => colours[values[cellOf(frame, shape, y, x)]];
  },
};

// What each layer paints at a pixel: [red, green, blue, alpha]. of: number of the experiment.
const LAYERS = [
  { name: "Image", needs: () => true, painter: () => () => [0, 0, 0, 0] },
  {
    name: "Depth",
    needs: (frame) => frame.depth,
    painter: (frame) => {
      const colours = new Map();
      const { shape, values } = frame.depth;
      return (i, y, x) => {
        const depth = values[cellOf(frame, shape, y, x)];
        if (!depth) return [0, 0, 0, 255];
        if (!colours.has(depth)) {
          const near = Math.log(FAR / depth) / Math.log(FAR / NEAR);
          colours.set(depth, [...ramp(near), 255]);
        }
        return colours.get(depth);
      };
    },
  },
  { name: "Truth", needs: (frame) => frame.truth, painter: (frame) => classes(frame.truth.values) },
  {
    name: "Prediction",
    needs: () => true,
    painter: (frame, of) => classes(frame[`mask${of}`].values),
  },
  REPORT.truth ? errors : disagreement,
  {
    name: "Confidence",
    needs: () => true,
    painter: (frame, of) => {
      const { shape, values } = frame[`percent${of}`];
      const colours = Array.from({ length: 101 }, (_, percent) => [...ramp(percent / 100), 255]);
      return (i, y, x) => colours[values[cellOf(frame, shape, y, x)]];
    },
  },
];

function classes(values) {
  const colours = REPORT.palette.map((colour) => [...colour, 255]);
  return (i) => colours[values[i]] || [0, 0, 0, 255];
}

// Paint a layer of a frame over the whole of a canvas.
function paint(canvas, frame, layer, of) {
  const [height, width] = frame.size;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const colour = LAYERS[layer].painter(frame, of);
  let i = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      picture.data.set(colour(i, y, x), 4 * i);
    }
  }
  context.putImageData(picture, 0, 0);
}

// What is known of a pixel: [what, text] pairs.
function tell(frame, of, y, x) {
  const names = REPORT.classes;
  const i = y * frame.size[1] + x;
  const rows = [["row, column", `${y}, ${x}`]];
  if (frame.truth) rows.push(["truth", names[frame.truth.values[i]] || "void"]);
  rows.push(["prediction", names[frame[`mask${of}`].values[i]]]);
  const { shape, values } = frame[`percent${of}`];
  const likely = frame[`classes${of}`].values;
  const cells = shape[1] * shape[2], cell = cellOf(frame, shape, y, x);
  const parts = [];
  for (let rank = 0; rank < shape[0]; rank++) {
    const percent = values[rank * cells + cell];
    if (percent) parts.push(`${names[likely[rank * cells + cell]]} ${percent} %`);
  }
  rows.push(["probabilities", parts.join(", ")]);
  if (frame.differing) {
    const count = frame.differing.values[cellOf(frame, frame.differing.shape, y, x)];
    rows.push(["disagreeing", `${count} of ${REPORT.networks} networks`]);
  }
  if (frame.depth) {
    const depth = frame.depth.values[cellOf(frame, frame.depth.shape, y, x)];
    rows.push(["depth", depth ? `${(depth / 1000).toFixed(3)} m` : "missing"]);
  }
  return rows;
}
