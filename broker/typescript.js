/**
 * Lets Node run the TypeScript sources as they are: `node --import=./broker/typescript.js broker/main.ts`.
 *
 * tsx's own `--import=tsx` registers in the main thread only, on the Node versions that this project supports, and the engine runs in
 * a worker thread. Node runs a module named by `--import` in each thread, so registering here serves both.
 *
 * `npm test` has compiled everything a moment ago and names the folder in the environment: a process of a test, of which there are
 * hundreds, then starts in half the time.
 */
import { register } from 'node:module'

const compiled = process.env['SHARED_VERBS_COMPILED']
if (compiled === undefined) {
  const tsx = await import('tsx/esm/api')
  tsx.register()
} else {
  process.setSourceMapsEnabled(true)
  register('./compiled-sources.js', import.meta.url, { data: compiled })
}
