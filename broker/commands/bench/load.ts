/** Processes that compute and never wait, one on each core, as another job on the node would. */
import { spawn } from 'node:child_process'
import type { Children } from '../demo/children.js'
import { pinToCore } from './pinning.js'

export function startLoad(children: Children, cores: number): void {
  for (let core = 0; core < cores; core++) {
    const program = 'for (let x = 1; ; ) x = (x * 1103515245 + 12345) >>> 0'
    const child = children.add(spawn(process.execPath, ['-e', program], { detached: true, stdio: 'ignore' }))
    pinToCore(child.pid ?? 0, core)
  }
}
