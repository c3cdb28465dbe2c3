// A GLB on a turntable, with sliders for its morph targets. It comes by drop, by the file button, or by ?url=;
// ?turntable and ?wireframe switch those on, ?track= plays a track of weights, ?shapes=jawOpen:0.5,... sets weights.
import {
  Box3,
  Color,
  DirectionalLight,
  HemisphereLight,
  MeshStandardMaterial,
  PerspectiveCamera,
  Scene,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { readTrack } from "./track.js";

const part = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const clay = new MeshStandardMaterial({ color: 0xcfc6bd, roughness: 0.75 });

let renderer;
try {
  renderer = new WebGLRenderer({ canvas: part("view"), antialias: true, preserveDrawingBuffer: true });
} catch {
  tell("This browser shows no WebGL. Switch hardware acceleration on, or use another browser.");
  throw new Error("no WebGL");
}
const scene = new Scene();
const camera = new PerspectiveCamera(30, 1, 0.01, 100);
const controls = new OrbitControls(camera, renderer.domElement);
const lamp = new DirectionalLight(0xffffff, 1.6);
let face = null;
let number = 0; // of the newest file asked for: an older one that comes later is not shown
let track = null;
let began = 0; // when the track did, in milliseconds of the page
let stale = true; // something changed since the last picture: what stands still is not drawn again

scene.add(new HemisphereLight(0xffffff, 0xb8b8c0, 2.0), lamp, lamp.target);
controls.enableDamping = true;
controls.autoRotateSpeed = 3;

function tell(words) {
  part("error").textContent = words;
  part("error").hidden = !words;
}

function paint() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  scene.background = new Color(dark ? 0x1c1d20 : 0xf4f4f6);
  stale = true;
}

function shine() {
  const angle = (part("light").valueAsNumber * Math.PI) / 180;
  lamp.position.set(Math.sin(angle), 0.5, Math.cos(angle)).add(controls.target);
  lamp.target.position.copy(controls.target);
  stale = true;
}

function front() {
  if (!face) return;
  const box = new Box3().setFromObject(face, true);
  const size = box.getSize(new Vector3());
  box.getCenter(controls.target);
  // Far enough for the longest side, also when it turns, in whichever direction the window is narrower.
  const reach = Math.max(size.x, size.y, size.z) / 2 / Math.tan((camera.fov * Math.PI) / 360);
  const distance = (1.4 * reach) / Math.min(1, camera.aspect);
  camera.near = distance / 100;
  camera.far = distance * 100;
  camera.updateProjectionMatrix();
  camera.position.copy(controls.target).add(new Vector3(0, 0, distance));
  controls.update();
  shine();
}

function dress() {
  stale = true;
  const bare = !part("texture").checked;
  face?.traverse((node) => {
    if (!node.isMesh) return;
    node.userData.own ??= node.material;
    node.material = bare ? clay : node.userData.own;
    node.material.wireframe = part("wireframe").checked;
    // What is seen through, as lashes are, has no shape of its own.
    node.visible = !(bare && node.userData.own.transparent);
  });
}

function discard(old) {
  old.traverse((node) => {
    if (!node.isMesh) return;
    node.geometry.dispose();
    node.userData.own?.map?.dispose();
    node.userData.own?.dispose();
  });
}

// Names of the morph targets of the file, in its order; none where it is not rigged.
function targets() {
  const names = [];
  face?.traverse((node) => names.push(...Object.keys(node.morphTargetDictionary ?? {})));
  return [...new Set(names)];
}

function weigh(name, value) {
  stale = true;
  face?.traverse((node) => {
    const place = node.morphTargetDictionary?.[name];
    if (place !== undefined) node.morphTargetInfluences[place] = value;
  });
}

function weight(name) {
  let value = 0;
  face?.traverse((node) => {
    const place = node.morphTargetDictionary?.[name];
    if (place !== undefined) value = node.morphTargetInfluences[place];
  });
  return value;
}

// A slider for each morph target.
function list() {
  const rows = targets().map((name) => {
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01 });
    slider.value = weight(name); // after its range, which would round it
    slider.dataset.shape = name;
    slider.addEventListener("input", () => {
      stop();
      weigh(name, slider.valueAsNumber);
    });
    label.append(slider, name);
    return label;
  });
  part("sliders").replaceChildren(...rows);
  part("shapes").hidden = rows.length === 0;
  part("playing").hidden = rows.length === 0;
}

function move(weights) {
  for (const [name, value] of weights) weigh(name, value);
  for (const slider of part("sliders").querySelectorAll("input")) slider.value = weight(slider.dataset.shape);
}

function reset(photographed) {
  stop();
  stale = true;
  face?.traverse((node) => {
    if (node.isMesh && node.morphTargetInfluences) {
      node.userData.photographed ??= [...node.morphTargetInfluences];
      const weights = photographed ? node.userData.photographed : node.userData.photographed.map(() => 0);
      weights.forEach((value, place) => (node.morphTargetInfluences[place] = value));
    }
  });
  move([]);
}

function play() {
  if (!track) return;
  const known = new Set(targets());
  if (!track.names.some((name) => known.has(name))) {
    tell("This track moves shapes that the file does not have. Ask the server for rig=arkit.");
    return;
  }
  tell("");
  reset(false);
  began = performance.now();
  part("play").textContent = "Stop";
}

function stop() {
  began = 0;
  part("play").textContent = "Play";
}

function take(name, text) {
  try {
    track = readTrack(JSON.parse(text));
    part("track-name").textContent = `${name}, ${track.duration.toFixed(1)} s`;
    part("play").disabled = false;
    play();
  } catch (error) {
    tell(`${name} is no track: ${error.message || error}`);
  }
}

async function show(name, read) {
  const mine = ++number;
  try {
    const gltf = await new GLTFLoader().parseAsync(await read(), "");
    if (mine !== number) return;
    stop();
    if (face) {
      scene.remove(face);
      discard(face);
    }
    face = gltf.scene;
    scene.add(face);
    let triangles = 0;
    face.traverse((node) => {
      if (node.isMesh) triangles += (node.geometry.index ?? node.geometry.attributes.position).count / 3;
      if (node.morphTargetInfluences) node.userData.photographed = [...node.morphTargetInfluences];
    });
    const size = new Box3().setFromObject(face, true).getSize(new Vector3()).multiplyScalar(1000);
    const mm = [size.x, size.y, size.z].map((value) => value.toFixed(0)).join(" × ");
    const shapes = targets().length;
    part("told").textContent =
      `${name}: ${triangles.toLocaleString("en")} triangles, ${mm} mm` + (shapes ? `, ${shapes} shapes` : "");
    part("hint").hidden = true;
    tell("");
    list();
    dress();
    front();
    // Shapes of the address, for pictures and links.
    for (const entry of (asked.get("shapes") ?? "").split(",").filter(Boolean)) {
      const [shape, value] = entry.split(":");
      move([[shape, Number(value)]]);
    }
    if (track) play();
  } catch (error) {
    if (mine === number) tell(`${name} cannot be shown: ${error.message || error}. A whole .glb file is needed.`);
  }
}

async function showFile(file) {
  if (!file) return;
  if (file.name.endsWith(".json")) take(file.name, await file.text());
  else show(file.name, () => file.arrayBuffer());
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`its server answered ${answer.status}`);
  return answer;
}

part("file").addEventListener("change", (event) => showFile(event.target.files[0]));
part("track").addEventListener("change", (event) => showFile(event.target.files[0]));
part("play").addEventListener("click", () => (began ? stop() : play()));
part("photographed").addEventListener("click", () => reset(true));
part("neutral").addEventListener("click", () => reset(false));
part("wireframe").addEventListener("change", dress);
part("texture").addEventListener("change", dress);
part("light").addEventListener("input", shine);
part("front").addEventListener("click", front);
part("turntable").addEventListener("change", (event) => (controls.autoRotate = event.target.checked));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") showFile(event.dataTransfer.files[0]);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

renderer.setAnimationLoop((now) => {
  const { clientWidth: width, clientHeight: height } = renderer.domElement;
  const ratio = Math.min(devicePixelRatio, 2);
  if (renderer.domElement.width !== Math.floor(width * ratio) || renderer.domElement.height !== Math.floor(height * ratio)) {
    renderer.setPixelRatio(ratio);
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    stale = true;
  }
  if (began) move(track.at(((now - began) / 1000) % track.duration));
  if (!controls.update() && !stale) return;
  stale = false;
  renderer.render(scene, camera);
});

paint();
for (const name of ["turntable", "wireframe"]) {
  if (asked.has(name) && asked.get(name) !== "0") part(name).click();
}
const url = asked.get("url");
if (url) show(url.split("/").pop(), async () => (await fetched(url)).arrayBuffer());
const recorded = asked.get("track");
if (recorded) {
  fetched(recorded)
    .then((answer) => answer.text())
    .then((text) => take(recorded.split("/").pop(), text))
    .catch((error) => tell(`${recorded} cannot be played: ${error.message || error}`));
}
