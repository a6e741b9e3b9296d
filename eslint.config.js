import js from "@eslint/js";
import globals from "globals";

const LIMITS = {
  "max-lines": ["error", 450],
  "max-lines-per-function": ["error", 60],
  "max-len": ["error", 120],
};

export default [
  js.configs.recommended,
  {
    files: ["assets/web/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
    rules: {
      ...LIMITS,
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "no-restricted-properties": ["error", ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) =>
        ({ property, message: "Text of people and files only ever becomes textContent." }))],
    },
  },
  { files: ["tests/web/**/*.mjs"], languageOptions: { ecmaVersion: 2023, globals: globals.node }, rules: LIMITS },
];
