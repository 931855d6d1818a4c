import { loadExplored } from './load.js'
const code = await loadExplored()
console.log(Object.keys(code), code.explored)
