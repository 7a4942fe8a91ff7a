import { fileURLToPath } from "node:url";
import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: "./", // the same files work under any path of any server
  plugins: [
    preact({ prefreshEnabled: false, devToolsEnabled: false }),
    {
      name: "trimmed-map",
      enforce: "pre",
      transform(code, id) {
        if (!id.includes("/embedding-atlas/dist/")) return null;
        return (
          code
            // its own labels for clusters are not used: the worker that finds clusters would be shipped for nothing
            .replace(/new Worker\(new URL\([^)]*\)[^)]*\)/g, "null")
            // the only inline style, of a rule between two words, which the content security policy forbids
            .replace(/ style=\\"[^"]*\\"/g, "")
        );
      },
    },
  ],
  resolve: {
    alias: [
      // The package's main entry holds a whole application; the view alone is this file. Its other half, over Mosaic and
      // DuckDB, is not used, so what it imports need not be there.
      { find: "embedding-atlas/component", replacement: here("node_modules/embedding-atlas/dist/component.js") },
      { find: /^@uwdata\/mosaic-(core|sql)$/, replacement: here("src/no-mosaic.ts") },
    ],
  },
  build: {
    outDir: here("../src/clickintent/explorer/page"),
    emptyOutDir: true,
    modulePreload: false,
    license: { fileName: "licenses.md" }, // of what is bundled: their notices go where the code goes
    assetsInlineLimit: 0, // no data: URLs, for the sake of a strict content security policy
    target: "es2022",
  },
});
