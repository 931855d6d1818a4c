/**
 * Puts each program that works on messages into one file, in the place where the compiler left it as many.
 *
 * V8 knows the value of a `const` of the same module when it compiles a function, and looks up that of another module each time: 40
 * constants and functions a message, a tenth of its cost (broker/engine/README.md, "Speed"). Packages stay outside.
 */
const isPackage = (id) => !id.startsWith('.') && !id.startsWith('/')

/** What others include stands behind them: each file replaces its own input. */
const programs = ['broker/engine/worker', 'client/bench-job', 'client/demo-job', 'client/index']

export default programs.map((program) => ({
  input: `.build/${program}.js`,
  external: isPackage,
  output: { file: `.build/${program}.js`, format: 'es' },
}))
