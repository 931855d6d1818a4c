/** Hooks of Node's module loader: each TypeScript source keeps its address, and its text is what the compiler made of it. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'

const root = new URL('../', import.meta.url).href
const packages = new URL('../node_modules/', import.meta.url).href
let compiled = root

/** `folder`: mirrors the repository. */
export function initialize(folder) {
  compiled = new URL(`${folder}/`, root).href
}

const isOurs = (url) => url.startsWith(root) && !url.startsWith(packages)

/** Sources name each other as they will be called when they are compiled. */
export function resolve(specifier, context, next) {
  const isPath = /^(\.{0,2}\/|file:)/.test(specifier)
  const url = isPath ? new URL(specifier, context.parentURL ?? root) : null
  if (url === null || !isOurs(url.href) || !url.pathname.endsWith('.js') || existsSync(url))
    return next(specifier, context)
  return next(url.href.replace(/\.js(?=$|\?)/, '.ts'), context)
}

export async function load(url, context, next) {
  if (!isOurs(url) || !/\.ts($|\?)/.test(url)) return next(url, context)
  const { pathname } = new URL(url.slice(root.length).replace(/\.ts($|\?)/, '.js$1'), compiled)
  return { format: 'module', source: await readFile(decodeURIComponent(pathname)), shortCircuit: true }
}
