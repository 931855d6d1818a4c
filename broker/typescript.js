/**
 * Lets Node run the TypeScript sources as they are: `node --import=./broker/typescript.js broker/main.ts`.
 *
 * tsx's own `--import=tsx` registers in the main thread only, on the Node versions that this project supports, and the engine runs in
 * a worker thread. Node runs a module named by `--import` in each thread, so registering here serves both.
 */
import { register } from 'tsx/esm/api'

register()
