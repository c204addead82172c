// Builds the pages: node build.mjs [FOLDER]. One small file for each entry; what they share, and what is loaded only when
// it is needed, in assets/, named by its content.
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const outdir = process.argv[2] ?? "../nemo_airflow/plugin/static";

// What Airflow's own page has, as globals: the pages bring none of it along.
const SHARED = {
  react: "React",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-dom": "ReactDOM",
  "react-router-dom": "ReactRouterDOM",
  "@chakra-ui/react": "ChakraUI",
};
const fromAirflow = {
  name: "from-airflow",
  setup(b) {
    b.onResolve({ filter: /^(react|react-dom|@chakra-ui)/ }, ({ path }) => {
      if (!(path in SHARED)) return { errors: [{ text: `Airflow does not share ${path}` }] };
      return { path, namespace: "airflow" };
    });
    b.onLoad({ filter: /.*/, namespace: "airflow" }, ({ path }) => ({
      contents: `module.exports = globalThis.${SHARED[path]}`,
    }));
  },
};

rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: readdirSync("src/entries").map((name) => `src/entries/${name}`),
  outdir,
  bundle: true,
  format: "esm",
  splitting: true,
  minify: true,
  target: "es2022",
  jsx: "automatic",
  loader: { ".css": "text" },
  chunkNames: "assets/[name]-[hash]",
  legalComments: "none", // their licences are in licenses.txt
  metafile: true,
  define: { "process.env.NODE_ENV": '"production"' },
  plugins: [fromAirflow],
  logLevel: "warning",
});
cpSync("src/icons", outdir, { recursive: true });

// What the licences of the libraries ask for: their texts go along.
const bundled = new Set();
for (const path of Object.keys(metafile.inputs)) {
  const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
  if (found) bundled.add(found[1]);
}
const texts = [...bundled].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const text = file && existsSync(`${folder}/${file}`) ? readFileSync(`${folder}/${file}`, "utf8").trim() : "";
  return `${name} ${version} (${license})\n\n${text}\n`;
});
writeFileSync(`${outdir}/licenses.txt`, texts.join(`\n${"-".repeat(80)}\n\n`));
