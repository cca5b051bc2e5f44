import { once } from 'node:events';
import { existsSync } from 'node:fs';

import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import { createLogger } from '../src/logger.ts';
import { startReporter, type Reporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES } from '../src/queues/catalogue.ts';
import { startWorkers, type Workers } from '../src/workers/runtime.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { seedParents, testConfig, testProducer } from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const isMissing = !existsSync(CHROMIUM);
if (isMissing) console.warn(`${CHROMIUM} is missing: the board's pages are not looked at.`);

const PASSWORD = 'correct horse';

describe.skipIf(isMissing)('the board in Chromium', () => {
  let db: TestDatabase;
  let location: QueueLocation;
  let workers: Workers;
  let reporter: Reporter;
  let board: Board;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  /** What the browser complained of: a script that failed, or what the policy did not let it load. */
  const complaints: string[] = [];

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = { kind: 'postgres', url: db.url, prefix: 'annals' };
    const config = testConfig({
      ANNALS_JOB_ATTEMPTS: '1',
      ANNALS_BOARD_PORT: '0',
      ANNALS_BOARD_PASSWORD: PASSWORD,
    });
    const log = createLogger(config);
    const { hooks, snapshot } = createWorkerMetrics('worker:1');
    reporter = startReporter({ databaseUrl: db.url, worker: 'worker:1', snapshot, log });
    workers = await startWorkers({ databaseUrl: db.url, queue: location, config, log, hooks });
    board = await startBoard({ databaseUrl: db.url, queue: location, config, log });
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    context = await browser.newContext({
      httpCredentials: { username: 'annals', password: PASSWORD },
      viewport: { width: 1280, height: 900 },
      locale: 'en-US', // without one in the environment, Chromium names one that its Intl refuses
    });
    page = await context.newPage();
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  });

  afterAll(async () => {
    await browser.close();
    await board.stop(5000);
    await workers.stop(5000);
    await reporter.stop();
    await db.drop();
  });

  /** Emits a hundred events of each kind, from the n-th. */
  const emit = async (from: number) => {
    const producer = testProducer(location);
    for (const kind of EVENT_KINDS) {
      for (let n = from; n < from + 100; n++) producer.emit(kind, sample(kind, n) as never);
    }
    await producer.close();
  };
  const committed = () =>
    page.locator('#queues tr', { hasText: 'memory-access' }).locator('td').nth(5).textContent();

  it('shows figures that follow what is committed, at a phone’s width as well', async () => {
    await page.goto(board.url);
    await expect.poll(() => page.locator('#status').textContent()).toBe('All is well');
    await emit(0);
    await expect.poll(committed).toBe('100');
    await emit(100);
    await expect.poll(committed).toBe('200');
    expect(await page.locator('.charts canvas').count()).toBe(4);
    await expect.poll(() => page.locator('#chart-rate .u-series').count()).toBe(5);
    expect(complaints).toEqual([]);

    await page.setViewportSize({ width: 360, height: 740 });
    const width = () => page.evaluate('document.documentElement.scrollWidth');
    await expect.poll(width).toBeLessThanOrEqual(360);
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  it('says that what is shown is old, when the board hangs', async () => {
    const seen = await context.newPage();
    await seen.goto(board.url);
    const status = () => seen.locator('#status').textContent();
    await expect.poll(status).toBe('All is well');
    await seen.route('**/live*', () => {}); // taken, and never answered
    await expect.poll(status).toContain('does not answer');
    await seen.unroute('**/live*');
    await expect.poll(status).toBe('All is well');
    await seen.close();
  });

  it('shows live figures while the demo runs, and a lag of just now', async () => {
    const demo = spawnTsx('src/demo/main.ts', ['--board', '--events', '60000'], {
      DATABASE_URL: undefined,
      REDIS_URL: undefined,
      ANNALS_BOARD_PORT: '0',
    });
    const exited = once(demo, 'exit');
    let output = '';
    demo.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const url = () => /^board: (http:\S+)$/m.exec(output)?.[1] ?? output;
    await expect.poll(url, { timeout: 60_000 }).toMatch(/^http/);
    const seen = await context.newPage();
    seen.on('pageerror', (error) => complaints.push(error.message));
    // Counts what each look adds.
    await seen.addInitScript(`window.listeners = 0;
      const add = document.addEventListener;
      document.addEventListener = function (type, ...rest) {
        if (type === 'visibilitychange') window.listeners++;
        return add.call(this, type, ...rest);
      };`);
    await seen.goto(url());
    const tile = async (title: string) =>
      (await seen.locator('.tile', { hasText: title }).locator('b').textContent()) ?? '';
    const rates = new Set<string>();
    const lags = new Set<string>();
    await expect
      .poll(
        async () => {
          rates.add(await tile('Committed'));
          lags.add(await tile('Lag'));
          return [...rates].filter((rate) => /^[1-9]/.test(rate)).length;
        },
        { timeout: 60_000, interval: 500 },
      )
      .toBeGreaterThan(1); // it moves
    for (const lag of lags) expect(lag).toMatch(/^(–|[\d.]+ (ms|s|min))$/);
    expect(await seen.evaluate('listeners')).toBe(1);
    expect(complaints).toEqual([]);
    await seen.close();
    expect((await exited)[0], output).toBe(0);
  }, 150_000);

  it('lists all queues, and a dead letter that is retried there becomes a row', async () => {
    const producer = testProducer(location);
    const id = producer.memoryAccess({
      memoryId: 'late',
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
    });
    await producer.close();
    const reason = page.locator('#letters', { hasText: 'memoryId: unknown id …' });
    await expect.poll(() => reason.count(), { timeout: 30_000 }).toBe(1);

    await page.goto(`${board.url}/queues`);
    for (const name of [...EVENT_KINDS, ...Object.keys(TASK_QUEUES)]) {
      await page.getByText(name, { exact: true }).first().waitFor();
    }
    await page.goto(`${board.url}/queues/queue/memory-access?status=failed`);
    await page.getByText('unknown id').first().waitFor();
    await page.locator('a[href*="/queues/queue/memory-access/"]').first().click();
    await page.waitForURL(/\/queues\/queue\/memory-access\/[^?]+/);
    await page.getByText('memoryId: unknown id "late"').first().waitFor();
    await page.getByRole('tab', { name: 'Data' }).click();
    await page.getByText('reasons').first().waitFor();
    expect(complaints).toEqual([]);
    await db.sql(`INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content",
      "importance", "updatedAt") VALUES ('late', 'user', 'agent', 'fact', '{}', 0.5, now())`);
    await page.goBack();
    await page
      .getByRole('button', { name: /^Retry/ })
      .last()
      .click();
    const confirm = page.getByRole('button', { name: /^Confirm/ });
    await confirm.click({ timeout: 2000 }).catch(() => {}); // it may ask
    await expect
      .poll(() => db.sql(`SELECT "memoryId" FROM "MemoryAccess" WHERE "id" = $1`, [id]))
      .toEqual([{ memoryId: 'late' }]);
  });

  it('shows nothing with wrong credentials', async () => {
    const stranger = await browser.newContext({
      httpCredentials: { username: 'annals', password: 'wrong horse' },
    });
    for (const path of ['/', '/live', '/metrics', '/queues', '/queues/api/queues']) {
      const response = await (await stranger.newPage()).goto(`${board.url}${path}`);
      expect(response?.status(), path).toBe(401);
      expect(await response?.text()).toBe(
        'This board takes a user and a password, or a bearer token.\n',
      );
    }
    await stranger.close();
  });
});
