/**
 * Loads the real sources for an exploration: bundled as they are, with the C library and packages replaced, and with the few changes
 * that a caller asks for (a mutant, or a smaller constant). A change whose text is not found exactly once is an error, so that it
 * cannot silently change nothing.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileFunction } from 'node:vm'
import { build, type Plugin } from 'esbuild'

export interface Change {
  /** From the root of the repository. */
  readonly file: string
  readonly find: string
  readonly replace: string
}

const root = fileURLToPath(new URL('../../', import.meta.url))
/** What stands in for a file: the name of an export of the stand-ins. */
const standIns: Readonly<Record<string, string>> = { 'shm/libc.ts': 'libc', 'client/segments.ts': 'segments' }
const STAND_INS = './tests/support/explorer-libc.ts'

/** A package that nothing in an exploration may need: anything can be read from it, called and constructed, and is itself again. */
const NOTHING = `
const nothing = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => '' : key === Symbol.iterator ? undefined : nothing),
  getPrototypeOf: () => nothing,
  apply: () => nothing,
  construct: () => nothing,
})
module.exports = nothing`

/** The exports of `entry` (from the root), of a copy of the code that has the changes. */
export async function loadCode<Code>(entry: string, changes: readonly Change[]): Promise<Code> {
  const left = new Set(changes)
  const bundled = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    logLevel: 'silent',
    plugins: [sources(changes, left)],
  })
  if (left.size > 0)
    throw new Error(`changed, but not part of ${entry}: ${[...left].map(({ file }) => file).join(', ')}`)
  const text = bundled.outputFiles[0]!.text
  const module = { exports: {} as Code & { explorerClock: object } }
  const run = compileFunction(text, ['module', 'exports', 'require', 'performance'], { filename: `explored ${entry}` })
  const clock = { now: (): number => (module.exports.explorerClock as { now(): number }).now() }
  run(module, module.exports, createRequire(import.meta.url), clock)
  return module.exports
}

function sources(changes: readonly Change[], left: Set<Change>): Plugin {
  return {
    name: 'sources',
    setup(bundle) {
      bundle.onResolve({ filter: /.*/ }, ({ path, kind, resolveDir }) => {
        if (kind === 'entry-point' || path.startsWith('node:')) return undefined
        if (!path.startsWith('.')) return { path, namespace: 'nothing' }
        const file = relative(root, resolve(resolveDir, path)).replace(/\.js$/, '.ts')
        return file in standIns ? { path: file, namespace: 'stand-in' } : undefined
      })
      bundle.onLoad({ filter: /.*/, namespace: 'nothing' }, () => ({ contents: NOTHING, loader: 'js' }))
      bundle.onLoad({ filter: /.*/, namespace: 'stand-in' }, ({ path }) => {
        const contents = `module.exports = require('${STAND_INS}').${standIns[path]}`
        return { contents, loader: 'js', resolveDir: root }
      })
      bundle.onLoad({ filter: /\.ts$/, namespace: 'file' }, async ({ path }) => {
        const file = relative(root, path)
        let contents = await readFile(path, 'utf8')
        for (const change of changes) {
          if (change.file !== file) continue
          contents = apply(change, contents)
          left.delete(change)
        }
        return { contents, loader: 'ts' }
      })
    },
  }
}

function apply({ file, find, replace }: Change, contents: string): string {
  const parts = contents.split(find)
  if (parts.length !== 2) throw new Error(`${file}: found ${parts.length - 1} times, not once: ${find}`)
  return parts.join(replace)
}
