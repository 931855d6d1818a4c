/** How far the demo is, on a terminal. */
import cliProgress from 'cli-progress'
import type { DemoProgress } from './settings.js'

export type ProgressBar = DemoProgress

export const silentProgress: ProgressBar = { step() {}, end() {} }

export function progressBar(): ProgressBar {
  const bar = new cliProgress.SingleBar({
    format: '{phase} {bar} {value}/{total}',
    barsize: 30,
    barCompleteChar: '#',
    barIncompleteChar: '.',
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
    gracefulExit: false,
  })
  let isRunning = false
  return {
    step(name, done, total) {
      const phase = name.padEnd(26)
      if (!isRunning) bar.start(total, done, { phase })
      else {
        bar.setTotal(total)
        bar.update(done, { phase })
      }
      isRunning = true
    },
    end() {
      if (isRunning) bar.stop()
      isRunning = false
    },
  }
}
